/** What the proxy asks of clients of a guest's ports. */
import { randomBytes } from 'node:crypto';

export const newToken = (): string => randomBytes(24).toString('hex');
