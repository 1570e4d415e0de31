// What the guest is made of. Together with lock.json it decides every byte of the images.

/** Debian release of kernel and images. */
export const suite = 'bookworm';

/** Every time stamp of the images, seconds since 1970: 2025-01-01. */
export const epochSec = 1735689600;

/** Follows the current kernel; the lock names the package it stood for. */
export const kernelPackage = 'linux-image-cloud-amd64';

/** In load order: each needs symbols of those before it. */
export const modules = [
  'virtio_ring',
  'virtio',
  'virtio_mmio',
  'virtio_blk',
  'failover',
  'net_failover',
  'virtio_net',
  'virtio-rng',
  'virtio_balloon',
] as const;

export interface ImageRecipe {
  /** Packages named here; what they need comes with them, recommended ones do not. */
  packages: readonly string[];
  /** Size of the file system; a sandbox's disk is this or larger. */
  sizeBytes: number;
  uuid: string;
  hashSeed: string;
}

const mib = 1024 * 1024;

const minimalPackages = [
  'bash',
  'ca-certificates',
  'coreutils',
  'curl',
  'iproute2',
  'iputils-ping',
  // Resolves whatever the sandbox's host name is, without DNS.
  'libnss-myhostname',
  'mount',
  'ncurses-base',
  'procps',
  // In place of the package that would merge /usr afterwards and brings all of Perl.
  'usr-is-merged',
];

export const imageNames = ['minimal', 'base'] as const;
export type ImageName = (typeof imageNames)[number];

export const images: Record<ImageName, ImageRecipe> = {
  minimal: {
    packages: minimalPackages,
    sizeBytes: 512 * mib,
    uuid: '9d2c8a52-6c0e-4c6b-9d6b-1f0a5e6f0a01',
    hashSeed: '3b1f4c9e-52f7-4d0e-8b0a-7c2f9f0e5d01',
  },
  base: {
    packages: [
      ...minimalPackages,
      'git',
      'less',
      'ncurses-bin',
      'nodejs',
      'openssh-client',
      'python-is-python3',
      'python3',
      'python3-pip',
      'python3-venv',
      'sudo',
      'unzip',
      'xz-utils',
    ],
    sizeBytes: 1024 * mib,
    uuid: '9d2c8a52-6c0e-4c6b-9d6b-1f0a5e6f0a02',
    hashSeed: '3b1f4c9e-52f7-4d0e-8b0a-7c2f9f0e5d02',
  },
};
