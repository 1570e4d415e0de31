/** What a probe of a program found out about this host, kept until it boots again or the program is another one. */
import { readFile, stat, writeFile } from 'node:fs/promises';
import { z } from 'zod';

const schema = z.object({
  bootId: z.string(),
  program: z.string(),
  changedMs: z.number(),
  works: z.boolean(),
});

/** `probe`'s answer for `program`, from `cache` if that has it. Without a cache it is always probed. */
export async function remembered(
  cache: string | undefined,
  program: string,
  probe: () => Promise<boolean>,
): Promise<boolean> {
  const changedMs = (await stat(program)).mtimeMs;
  const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  const known = cache === undefined ? undefined : await read(cache);
  if (known?.bootId === bootId && known.program === program && known.changedMs === changedMs)
    return known.works;
  const works = await probe();
  if (cache !== undefined) await writeFile(cache, JSON.stringify({ bootId, program, changedMs, works }));
  return works;
}

async function read(file: string): Promise<z.infer<typeof schema> | undefined> {
  try {
    return schema.parse(JSON.parse(await readFile(file, 'utf8')));
  } catch {
    // Missing or damaged: the probe is simply run again.
    return undefined;
  }
}

/** The first words of a guest's kernel. */
export const FIRST_WORDS = 'Linux version';
