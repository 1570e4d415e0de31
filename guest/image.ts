// A root image: Debian packages installed by mmdebstrap, set up by customize.sh, packed as ext4.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ext4Config, packExt4 } from './ext4.ts';
import { describe, type Replaced, replacements, type Versions } from './lock.ts';
import { epochSec, type ImageName, images, suite } from './recipe.ts';
import { run } from './run.ts';
import { debianSources, proxyOptions } from './sources.ts';
import { runStep, sha256File } from './step.ts';

export interface Image {
  file: string;
  size_bytes: number;
  /** Hash of the content. */
  id: string;
  packages: Versions;
  replaced: Replaced[];
}

/** Documentation and translations are most of a package's files; licences stay. */
const dpkgOptions = [
  'path-exclude=/usr/share/doc/*',
  'path-include=/usr/share/doc/*/copyright',
  'path-exclude=/usr/share/man/*',
  'path-exclude=/usr/share/info/*',
  'path-exclude=/usr/share/lintian/*',
  'path-exclude=/usr/share/locale/*',
  'path-include=/usr/share/locale/locale.alias',
];

const customizeScript = new URL('./customize.sh', import.meta.url).pathname;
const recipeFiles = [customizeScript, ext4Config];

export async function buildImage(outDir: string, name: ImageName, locked: Versions): Promise<Image> {
  const recipe = images[name];
  const file = `${name}.ext4`;
  const files = await Promise.all(recipeFiles.map((path) => readFile(path, 'utf8')));
  return runStep({
    name,
    outDir,
    inputs: { format: 1, suite, epochSec, recipe, dpkgOptions, files, locked },
    outputs: [file],
    async build(workDir, say) {
      const tar = join(workDir, 'root.tar');
      await install(name, locked, tar, workDir, say);
      say('pack the file system');
      const tree = join(workDir, 'tree');
      const unpack = ['tar', '--extract', '--file', tar, '--directory', tree];
      await run(['mkdir', tree]);
      await run([...unpack, '--numeric-owner', '--xattrs', '--xattrs-include=*', '--exclude=./dev/*']);
      const packages = await installedVersions(tree);
      const replaced = replacements(locked, packages);
      if (Object.keys(locked).length > 0) for (const difference of replaced) say(describe(difference));
      const image = join(workDir, file);
      await packExt4(tree, image, recipe, epochSec);
      return { file, size_bytes: recipe.sizeBytes, id: await sha256File(image), packages, replaced };
    },
  });
}

async function install(
  name: ImageName,
  locked: Versions,
  tar: string,
  workDir: string,
  say: (line: string) => void,
): Promise<void> {
  const sources = await debianSources();
  const pins = join(workDir, 'lock.pref');
  await writeFile(pins, pinned(locked));
  const argv = [
    'mmdebstrap',
    '--variant=apt',
    '--format=tar',
    `--include=${images[name].packages.join(',')}`,
    '--aptopt=Acquire::Languages "none"',
    ...(await proxyOptions()).map((option) => `--aptopt=${option}`),
    ...dpkgOptions.map((option) => `--dpkgopt=${option}`),
    '--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr',
    '--skip=cleanup/reproducible',
    '--setup-hook=mkdir -p "$1/etc/apt/preferences.d"',
    `--setup-hook=copy-in ${pins} /etc/apt/preferences.d`,
    `--customize-hook=sh '${customizeScript}' "$1" ${name}`,
    suite,
    tar,
    ...sources,
  ];
  await run(argv, {
    env: { SOURCE_DATE_EPOCH: String(epochSec) },
    onLine: (line) => line.startsWith('I: ') && /install|extract|download/.test(line) && say(line.slice(3)),
  });
}

/** A pin for a version that the archive lost matches nothing, so apt takes the current one. */
function pinned(locked: Versions): string {
  return Object.entries(locked)
    .map(([name, version]) => `Package: ${name}\nPin: version ${version}\nPin-Priority: 1001\n`)
    .join('\n');
}

async function installedVersions(tree: string): Promise<Versions> {
  const query = ['dpkg-query', `--admindir=${tree}/var/lib/dpkg`, '--show'];
  // One line a package: name, for some with the architecture behind a colon, tab, version.
  const rows = (await run(query)).trim().split('\n');
  return Object.fromEntries(rows.map((row) => row.replace(/:\w+\t/, '\t').split('\t') as [string, string]));
}
