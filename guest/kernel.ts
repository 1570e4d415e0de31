// Kernel: Debian's cloud kernel, unpacked to the ELF that both VMMs boot directly, and the modules it needs.
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Versions } from './lock.ts';
import { kernelPackage, modules } from './recipe.ts';
import { run } from './run.ts';
import { updateLists } from './sources.ts';
import { runStep, sha256File } from './step.ts';

export interface Kernel {
  file: string;
  sha256: string;
  /** As `uname -r` has it. */
  version: string;
  packages: Versions;
  modulesSha256: Record<string, string>;
}

export const modulesFile = 'modules';

export function buildKernel(outDir: string, locked: Versions): Promise<Kernel> {
  return runStep({
    name: 'kernel',
    outDir,
    inputs: { format: 1, kernelPackage, locked, modules },
    outputs: ['vmlinux', modulesFile],
    async build(workDir, say) {
      const [name, version] = await choosePackage(locked, say);
      say(`download ${name} ${version}`);
      const debDir = join(workDir, 'deb');
      await mkdir(debDir);
      await run(['apt-get', '-q', '-o', 'APT::Sandbox::User=root', 'download', `${name}=${version}`], {
        cwd: debDir,
      });
      const [deb] = await readdir(debDir);
      const tree = join(workDir, 'tree');
      await run(['dpkg-deb', '--extract', join(debDir, deb!), tree]);
      const release = name.replace('linux-image-', '');
      say(`unpack vmlinux ${release}`);
      const vmlinux = join(workDir, 'vmlinux');
      await unpackVmlinux(join(tree, 'boot', `vmlinuz-${release}`), vmlinux);
      const modulesSha256 = await stripModules(
        join(tree, 'lib/modules', release),
        join(workDir, modulesFile),
      );
      return {
        file: 'vmlinux',
        sha256: await sha256File(vmlinux),
        version: release,
        packages: { [name]: version },
        modulesSha256,
      };
    },
  });
}

/** The locked package, else what the archive has now. */
async function choosePackage(locked: Versions, say: (line: string) => void): Promise<[string, string]> {
  const wanted = Object.entries(locked)[0];
  if (wanted && (await archiveHas(...wanted))) return wanted;
  await updateLists();
  if (wanted && (await archiveHas(...wanted))) return wanted;
  const current = await currentPackage();
  if (wanted) say(`${wanted.join(' ')} is not in the archive, ${current.join(' ')} used instead`);
  return current;
}

async function archiveHas(name: string, version: string): Promise<boolean> {
  const table = await run(['apt-cache', 'madison', name]);
  return table.split('\n').some((row) => row.split('|')[1]?.trim() === version);
}

async function currentPackage(): Promise<[string, string]> {
  const depends = await run(['apt-cache', 'depends', '--important', kernelPackage]);
  const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (!name) throw new Error(`the archive has no ${kernelPackage}`);
  const record = await run(['apt-cache', 'show', '--no-all-versions', name]);
  const version = /^Version: (\S+)$/m.exec(record)?.[1];
  if (!version) throw new Error(`the archive has no ${name}`);
  return [name, version];
}

/**
 * The x86 boot protocol (Documentation/arch/x86/boot.rst): sectors of set-up code at 0x1f1, then the
 * protected-mode part, in it at payload_offset (0x248), payload_length (0x24c) bytes of compressed ELF; the last
 * four of them are the unpacked size.
 */
async function unpackVmlinux(bzImage: string, vmlinux: string): Promise<void> {
  const image = await readFile(bzImage);
  if (image.toString('latin1', 0x202, 0x206) !== 'HdrS')
    throw new Error(`${basename(bzImage)} is not a bzImage`);
  const start = (image.readUInt8(0x1f1) + 1) * 512 + image.readUInt32LE(0x248);
  const end = start + image.readUInt32LE(0x24c);
  const payload = image.subarray(start, end - 4);
  const lz4LegacyMagic = 0x184c2102;
  if (payload.readUInt32LE(0) !== lz4LegacyMagic) throw new Error('the kernel is not compressed with LZ4');
  await writeFile(`${vmlinux}.lz4`, payload);
  await run(['lz4', '-d', '-q', '-f', `${vmlinux}.lz4`, vmlinux]);
}

/** Copies the modules without debug information, which guest memory would have to hold. */
async function stripModules(tree: string, into: string): Promise<Record<string, string>> {
  await mkdir(into);
  const files = await readdir(join(tree, 'kernel'), { recursive: true });
  const sums: Record<string, string> = {};
  for (const name of modules) {
    const file = files.find((candidate) => basename(candidate) === `${name}.ko`);
    if (!file) throw new Error(`the kernel has no module ${name}`);
    const target = join(into, `${name}.ko`);
    await run(['strip', '--strip-debug', '-o', target, join(tree, 'kernel', file)]);
    sums[name] = await sha256File(target);
  }
  return sums;
}
