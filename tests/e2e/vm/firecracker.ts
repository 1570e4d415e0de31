/** The Firecracker that tests run: a real one if there is one, else the fake. */
import path from 'node:path';
import { rustTarget } from '../../../scripts/rust-target.ts';

const real = process.env.THAW_FIRECRACKER_BIN;

export const IS_REAL = real !== undefined;

export const FIRECRACKER =
  real ??
  path.resolve(import.meta.dirname, '../../../target', rustTarget().target, 'release/fake-firecracker');

/** The jailer that comes with it. */
export const JAILER = IS_REAL
  ? process.env.THAW_JAILER_BIN
  : path.join(path.dirname(FIRECRACKER), 'fake-jailer');

/** For a real one whose guest's kernel is not the installed one. */
export const KERNEL = process.env.THAW_FIRECRACKER_KERNEL;

/** Why a test is left out with this one; false if it is not. */
export const needsFake = IS_REAL && 'only the fake has switches for its faults';

export const needsFakeGuest = IS_REAL && "only the fake's guest has the commands";

export const noJailer = JAILER === undefined && 'THAW_JAILER_BIN does not name its jailer';
