// Initramfs: thaw-init, the guest agent and the kernel modules, uncompressed because unpacking costs boot time.
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Entry, encodeCpio } from './cpio.ts';
import { type Kernel, modulesFile } from './kernel.ts';
import { modules } from './recipe.ts';
import { run } from './run.ts';
import { runStep, sha256File } from './step.ts';

export interface Initramfs {
  file: string;
  sha256: string;
}

/** Name in the archive to name of the Rust binary. */
const programs = { init: 'thaw-init', envd: 'thaw-envd' } as const;

export async function buildInitramfs(outDir: string, binDir: string, kernel: Kernel): Promise<Initramfs> {
  const binaries: Record<string, string> = {};
  for (const binary of Object.values(programs)) {
    const path = join(binDir, binary);
    if (!existsSync(path))
      throw new Error(`${binary} is not built (cargo build --release for the musl target)`);
    binaries[binary] = await sha256File(path);
  }
  return runStep({
    name: 'initramfs',
    outDir,
    inputs: { format: 1, binaries, modules: kernel.modulesSha256 },
    outputs: ['initramfs.cpio'],
    async build(workDir, say) {
      say(`pack ${Object.values(programs).join(', ')} and ${modules.length} modules`);
      const file = join(workDir, 'initramfs.cpio');
      await writeFile(file, encodeCpio(await collect(outDir, binDir, workDir)));
      return { file: 'initramfs.cpio', sha256: await sha256File(file) };
    },
  });
}

async function collect(outDir: string, binDir: string, workDir: string): Promise<Entry[]> {
  const entries: Entry[] = [
    { path: 'dev', kind: 'dir', mode: 0o755 },
    { path: 'dev/console', kind: 'char', mode: 0o600, major: 5, minor: 1 },
    { path: 'modules', kind: 'dir', mode: 0o755 },
    { path: 'root', kind: 'dir', mode: 0o755 },
  ];
  for (const [name, binary] of Object.entries(programs)) {
    const stripped = join(workDir, binary);
    await run(['strip', '--strip-all', '-o', stripped, join(binDir, binary)]);
    entries.push({ path: name, kind: 'file', mode: 0o755, content: await readFile(stripped) });
  }
  for (const [index, name] of modules.entries()) {
    const path = `modules/${String(index).padStart(2, '0')}-${name}.ko`;
    const content = await readFile(join(outDir, modulesFile, `${name}.ko`));
    entries.push({ path, kind: 'file', mode: 0o644, content });
  }
  return entries;
}
