// Debian's package archive as this machine is configured to reach it.
import { suite } from './recipe.ts';
import { run } from './run.ts';

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** apt source lines of Debian itself; what else the machine uses is left out of the guest. */
export async function debianSources(): Promise<string[]> {
  const lines = await configuredSources();
  if (lines.length > 0) return lines;
  await updateLists();
  const updated = await configuredSources();
  if (updated.length === 0) throw new Error(`this machine's apt sources have no Debian ${suite}`);
  return updated;
}

export async function updateLists(): Promise<void> {
  await run(['apt-get', '-q', 'update']);
}

/** apt options that decide how the archive is reached, as `Name "value"` lines. */
export async function proxyOptions(): Promise<string[]> {
  const config = await run(['apt-config', 'dump']);
  return config
    .split('\n')
    .filter((line) => /^Acquire::(http|https)::Proxy\b/.test(line))
    .map((line) => line.replace(/;$/, ''));
}

/** apt knows its sources only once their lists were fetched: empty on a machine that never updated. */
async function configuredSources(): Promise<string[]> {
  const format = ['$(REPO_URI)', '$(RELEASE)', '$(COMPONENT)', '$(ORIGIN)', '$(CODENAME)'].join('|');
  const targets = await run(['apt-get', 'indextargets', '--format', format, 'Created-By: Packages']);
  const lines = new Set<string>();
  for (const target of targets.split('\n')) {
    const [uri, release, component, origin, codename] = target.split('|');
    const ours = codename === suite || codename?.startsWith(`${suite}-`);
    if (origin !== 'Debian' || component !== 'main' || !ours || release?.endsWith('-backports')) continue;
    lines.add(`deb [signed-by=${keyring}] ${uri} ${release} main`);
  }
  return [...lines];
}
