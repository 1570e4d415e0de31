import { z } from 'zod';
import { run } from '../os/run.ts';

/** The rate of this host's time stamp counter in kHz, as the keeper's program measures it. */
export async function measureTsc(keeper: string): Promise<number> {
  const { stdout } = await run([keeper, 'tsc']);
  return z.object({ tsc_khz: z.number().int().positive() }).parse(JSON.parse(stdout)).tsc_khz;
}
