import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import {
  type Machine,
  type Manifest,
  mismatches,
  parseManifest,
  SnapshotFormatError,
  serialiseManifest,
} from './index.ts';

const SUM = 'ab'.repeat(32);

const machine: Machine = {
  vmm: 'qemu',
  vmm_version: '7.2.22',
  machine_type: 'microvm',
  cpu_model: 'qemu64',
  accelerator: 'tcg',
  tsc_khz: 2_596_120,
  kernel: '6.1.0',
  guest_agent: SUM,
  preload: SUM,
  vcpus: 2,
};

function sample(): Manifest {
  const image = {
    size_bytes: 8192,
    stored_bytes: 4096,
    generation: 1,
    parent: randomUUID(),
    header: { size_bytes: 144, sha256: SUM },
    file_bytes: 8192,
    chunks: [[0, SUM] satisfies [number, string]],
  };
  return {
    format: 1,
    id: randomUUID(),
    created_at: '2026-01-02T03:04:05.678Z',
    template: 'minimal',
    guest_unresponsive: false,
    machine,
    vmstate: { size_bytes: 50_000, sha256: SUM },
    memory: image,
    disk: image,
  };
}

test('a manifest reads back as it was written', () => {
  const full = sample();
  assert.deepEqual(parseManifest(serialiseManifest(full)), full);
  const diskOnly = { ...sample(), machine: null, vmstate: null, memory: null };
  assert.deepEqual(parseManifest(serialiseManifest(diskOnly)), diskOnly);
});

test('a cut or changed manifest is refused', () => {
  const text = serialiseManifest(sample());
  for (let length = 0; length < text.length; length += 7) {
    assert.throws(() => parseManifest(text.slice(0, length)), SnapshotFormatError);
  }
  assert.throws(() => parseManifest(text.replace('"vcpus":2', '"vcpus":3')), /checksum/);
  assert.throws(() => parseManifest(`${text}\n`), SnapshotFormatError);
});

test('an inconsistent manifest is refused', () => {
  const refused = (change: object, message: RegExp) =>
    assert.throws(() => serialiseManifest({ ...sample(), ...change } as Manifest), message);
  refused({ format: 2 }, /format/);
  refused({ vmstate: null }, /all there or all null/);
  refused({ id: 'x' }, /not the id of a build/);
  refused({ surprise: 1 }, /surprise/);
  refused({ disk: { ...sample().disk, size_bytes: -1 } }, /size_bytes/);
  refused(
    {
      disk: {
        ...sample().disk,
        chunks: [
          [1, SUM],
          [0, SUM],
        ],
      },
    },
    /ascending/,
  );
});

test('a host that differs is told why', () => {
  assert.deepEqual(mismatches(machine, { ...machine, vmm_version: '7.2.99', tsc_khz: 2_596_200 }), []);
  assert.deepEqual(mismatches(machine, { ...machine, tsc_khz: null }), []);
  assert.match(
    mismatches(machine, { ...machine, vmm_version: '8.0.1' })[0]!,
    /qemu version 7\.2, this host has 8\.0/,
  );
  assert.match(mismatches(machine, { ...machine, tsc_khz: 2_700_000 })[0]!, /TSC of 2596120 kHz/);
  assert.equal(
    mismatches(machine, { ...machine, cpu_model: 'a', accelerator: 'kvm', machine_type: 'b' }).length,
    3,
  );
});
