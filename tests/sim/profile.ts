/** How much goes wrong in a run; its seed chooses one. */
/** What may go wrong in a run. */
export interface Profile {
  name: 'calm' | 'faults' | 'kills' | 'chaos';
  /** Of each step and each call of a fake: how often it fails. */
  fault: number;
  /** Of each use of the database. */
  outage: number;
  /** Weights beside 20 for a step: the host agent, the control plane or a VM ends. */
  killHost: number;
  killPlane: number;
  killVm: number;
}

export const PROFILES: readonly Profile[] = [
  { name: 'calm', fault: 0, outage: 0, killHost: 0, killPlane: 0, killVm: 0 },
  { name: 'faults', fault: 0.012, outage: 0.004, killHost: 0, killPlane: 0, killVm: 0 },
  { name: 'kills', fault: 0, outage: 0, killHost: 0.12, killPlane: 0.08, killVm: 0 },
  { name: 'chaos', fault: 0.008, outage: 0.003, killHost: 0.08, killPlane: 0.05, killVm: 0.05 },
];
