import { z } from 'zod';

/** Text of at most `max` UTF-16 units that a database, a protocol buffer and an argv can all hold. */
export const text = (max: number) =>
  z
    .string()
    .max(max)
    .refine((value) => !value.includes('\0'), 'must not contain NUL')
    .refine((value) => value.isWellFormed(), 'must be valid Unicode');
