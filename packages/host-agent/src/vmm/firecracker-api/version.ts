/** Firecracker's version, and which fields of its requests a version knows: bodies with any other are refused whole. */
import { ThawError } from '@thaw/api';

/** [major, minor] */
export type Version = readonly [number, number];

/** Tells its devices by ACPI, which the guest's kernel needs. */
export const OLDEST: Version = [1, 8];

/** From the first line of `firecracker --version` or from `GET /version`. Undefined if it is neither. */
export function parseVersion(text: string): Version | undefined {
  const found = /^(?:Firecracker )?v?(\d+)\.(\d+)\.\d+/.exec(text);
  return found === null ? undefined : [Number(found[1]), Number(found[2])];
}

export function isAtLeast(version: Version, wanted: Version): boolean {
  return version[0] > wanted[0] || (version[0] === wanted[0] && version[1] >= wanted[1]);
}

/** Since when a field is known that not every version has; of `before`, by what name it was known earlier. */
const FIELDS: Record<string, Record<string, { since: Version; before?: string }>> = {
  'PUT /snapshot/load': {
    network_overrides: { since: [1, 12] },
    track_dirty_pages: { since: [1, 13], before: 'enable_diff_snapshots' },
    clock_realtime: { since: [1, 16] },
    vsock_override: { since: [1, 16] },
    huge_pages: { since: [1, 17] },
  },
};

/** What a body may lack without a change of what it asks for: the driver makes up for it. */
const DISPENSABLE = new Set(['network_overrides', 'clock_realtime']);

/**
 * `body` as a Firecracker of this version takes it. Throws `invalid_state` where it would not do what was asked.
 */
export function sendable(
  version: Version,
  call: string,
  body: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const fields = Object.entries(body).flatMap(([name, value]) => {
    const known = FIELDS[call]?.[name];
    if (known === undefined || isAtLeast(version, known.since)) return [[name, value] as const];
    if (known.before !== undefined) return [[known.before, value] as const];
    if (DISPENSABLE.has(name)) return [];
    throw new ThawError('invalid_state', `Firecracker ${version.join('.')} has no ${name} in ${call}`);
  });
  return Object.fromEntries(fields);
}
