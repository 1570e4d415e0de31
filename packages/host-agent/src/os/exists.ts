import { access } from 'node:fs/promises';

/** Whether there is something of this path; what can't be looked at counts as not there. */
export function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
