/** What a probe found out about this host, kept until it boots again. */
import { readFile, writeFile } from 'node:fs/promises';
import { z } from 'zod';

const schema = z.object({ bootId: z.string(), program: z.string(), works: z.boolean() });

/** `probe`'s answer for `program`, from `cache` if that has it. Without a cache it is always probed. */
export async function remembered(
  cache: string | undefined,
  program: string,
  probe: () => Promise<boolean>,
): Promise<boolean> {
  const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  const known = cache === undefined ? undefined : await read(cache);
  if (known?.bootId === bootId && known.program === program) return known.works;
  const works = await probe();
  if (cache !== undefined) await writeFile(cache, JSON.stringify({ bootId, program, works }));
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
