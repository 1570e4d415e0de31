/** Where the network's state is on the host. */
import path from 'node:path';

/** Claims of all instances on this machine; in /run, because addresses and users mean nothing after a reboot. */
export const CLAIMS_DIR = '/run/thaw.claims';

export function claimFile(claimsDir: string, instance: string): string {
  return path.join(claimsDir, `${instance}.json`);
}

export function claimLock(claimsDir: string): string {
  return path.join(claimsDir, 'lock');
}

/** The instance's own copy of its claim, so that it gets the same block after a restart. */
export function recordedClaim(data: string): string {
  return path.join(data, 'claim.json');
}

export function netnsPath(name: string): string {
  return path.join('/run/netns', name);
}

/** A setting of one interface in the namespace this process is in. */
export function interfaceSetting(family: 'ipv4' | 'ipv6', device: string, setting: string): string {
  return path.join('/proc/sys/net', family, 'conf', device, setting);
}
