import assert from 'node:assert/strict';
import { it } from 'node:test';
import { argv, type Guest } from './argv.ts';

const GUEST: Guest = {
  program: '/usr/bin/qemu-system-x86_64',
  accelerator: 'tcg',
  vcpus: 1,
  memoryMb: 512,
  tapName: 'tap0',
  tscKhz: 2_000_000,
  cmdline: [],
  incoming: false,
};

/** What follows the flag. */
function value(guest: Partial<Guest>, flag: string): string | undefined {
  const all = argv({ ...GUEST, ...guest });
  return all[all.indexOf(flag) + 1];
}

it('translates the barriers of a single processor, also for a guest that is restored', () => {
  for (const incoming of [false, true]) assert.equal(value({ incoming }, '-smp'), '1,maxcpus=2');
  assert.equal(value({ vcpus: 2 }, '-smp'), '2');
  assert.equal(value({ accelerator: 'kvm' }, '-smp'), '1');
});

it('has the guest make ready for the processors that it has', () => {
  for (const vcpus of [1, 2])
    assert.match(value({ vcpus }, '-append') ?? '', new RegExp(` nr_cpus=${vcpus}$`));
  assert.doesNotMatch(value({ accelerator: 'kvm' }, '-append') ?? '', /nr_cpus/);
});
