/** The command line of stock QEMU for one sandbox. Paths are those of its jail. */
import { GUEST_MAC } from '../../network/addresses.ts';
import { KERNEL_PARAMETERS } from '../cmdline.ts';
import { DISK_PATH } from '../disk.ts';

export const MACHINE = 'microvm';
/** Runs everywhere; `max` and `host` would tie a snapshot to one processor. */
export const CPU_MODEL = 'Nehalem';

/** Descriptors that the VMM inherits from the keeper; those of builds follow their header's. */
export const FD = { userfaultfd: 10, monitor: 11, vmstate: 12, memoryHeader: 13 } as const;

export const JAIL = {
  kernel: '/boot/vmlinux',
  initramfs: '/boot/initramfs',
  preload: '/thaw/preload.so',
  memoryDir: '/mem',
  memory: '/mem/ram',
  pagerSocket: '/run/pager.sock',
  saveSocket: '/run/save.sock',
} as const;

/** Translated code: large enough for a busy guest, small enough for many guests. */
const TRANSLATION_CACHE_MB = 64;

export interface Guest {
  program: string;
  accelerator: 'kvm' | 'tcg';
  vcpus: number;
  memoryMb: number;
  tapName: string;
  tscKhz: number;
  cmdline: string[];
  /** Wait for a device state instead of starting the kernel. */
  incoming: boolean;
}

export function argv(guest: Guest): string[] {
  const accel = guest.accelerator === 'tcg' ? `tcg,thread=multi,tb-size=${TRANSLATION_CACHE_MB}` : 'kvm';
  const flags: string[][] = [
    ['-nodefaults'],
    ['-no-user-config'],
    ['-no-reboot'],
    ['-display', 'none'],
    ['-S'],
    ['-machine', `${MACHINE},acpi=on,pcie=off,rtc=on,memory-backend=ram`],
    ['-accel', accel],
    ['-cpu', CPU_MODEL],
    ['-smp', processors(guest)],
    ['-m', `${guest.memoryMb}M`],
    // Shared, so that a migration leaves the memory out; the preload library makes the mapping private.
    ['-object', `memory-backend-file,id=ram,size=${guest.memoryMb}M,mem-path=${JAIL.memory},share=on`],
    ['-chardev', 'stdio,id=console,signal=off'],
    ['-serial', 'chardev:console'],
    ['-chardev', `socket,id=monitor,fd=${FD.monitor},server=on,wait=off`],
    ['-mon', 'chardev=monitor,mode=control'],
    // drop-cache: else a restore syncs the file and throws its page cache away.
    [
      '-blockdev',
      `driver=raw,node-name=disk,discard=unmap,file.driver=file,file.filename=${DISK_PATH},file.drop-cache=off,file.locking=off`,
    ],
    ['-device', 'virtio-blk-device,id=blk0,drive=disk,werror=report,rerror=report'],
    ['-netdev', `tap,id=net,ifname=${guest.tapName},script=no,downscript=no`],
    // status: else the guest may hold its first packets back for up to a second.
    ['-device', `virtio-net-device,id=net0,netdev=net,mac=${GUEST_MAC},status=off`],
    ['-device', 'virtio-rng-device,id=rng0'],
    // Nothing inflates it: it is there so that the guest gives back what it has freed.
    ['-device', 'virtio-balloon-device,id=balloon0,free-page-reporting=on'],
    ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
  ];
  // A restored guest has its kernel: QEMU would read all of that file once more for nothing.
  if (guest.incoming) flags.push(['-incoming', 'defer']);
  else
    flags.push(
      ['-kernel', JAIL.kernel],
      ['-initrd', JAIL.initramfs],
      ['-append', kernelCmdline(guest).join(' ')],
    );
  return [guest.program, ...flags.flat()];
}

/**
 * For a machine that can have one processor only, QEMU translates the guest's memory barriers to nothing, though its own
 * threads run beside that processor: now and then an interrupt of a queue gets lost, and its device stands still for ever.
 */
export function processors({ accelerator, vcpus }: Pick<Guest, 'accelerator' | 'vcpus'>): string {
  return accelerator === 'tcg' && vcpus === 1 ? '1,maxcpus=2' : String(vcpus);
}

/**
 * Without the counter's rate and `no_timer_check`, calibration against an emulated timer fails now and then and
 * the boot hangs for ever. With KVM neither is needed, and a guest keeps its mitigations.
 */
export function kernelCmdline(guest: Pick<Guest, 'accelerator' | 'vcpus' | 'tscKhz' | 'cmdline'>): string[] {
  const emulated = [
    `tsc_early_khz=${guest.tscKhz}`,
    'tsc=reliable',
    'no_timer_check',
    'mitigations=off',
    // QEMU translates code for its virtual address: each program would be translated anew in each process.
    'norandmaps',
    // Else it makes ready for one that never comes, and keeps locks that a single one does not need.
    `nr_cpus=${guest.vcpus}`,
  ];
  return [
    ...KERNEL_PARAMETERS,
    'reboot=t',
    'pci=off',
    ...(guest.accelerator === 'tcg' ? emulated : []),
    ...guest.cmdline,
  ];
}
