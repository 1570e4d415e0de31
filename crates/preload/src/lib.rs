//! Loaded into an unmodified QEMU (`LD_PRELOAD`): gives the guest's memory to a pager.
//!
//! QEMU maps its memory backend file shared, so that `x-ignore-shared` leaves it out of the device state. This
//! library makes that one mapping private anonymous memory instead, registers it with userfaultfd, and hands
//! the userfaultfd to the pager in Firecracker's handshake. Or it maps a build's memory there, privately.
//!
//! | variable | |
//! |---|---|
//! | `THAW_MEM_PATH` | the memory backend's file |
//! | `THAW_UFFD_DEV_FD` | an open /dev/userfaultfd, closed once used |
//! | `THAW_PAGER_SOCKET` | the pager's Unix socket |
//! | `THAW_PAGER_MODE` | `boot`: missing pages are zero; `restore`: the pager serves them; `mapped`: there are none |
//! | `THAW_MEM_HEADER_FD`, `THAW_MEM_BUILDS` | of `mapped`: the header of the memory, and `BUILD=FD` for each build that it names, with commas between; closed once used |
//! | `THAW_TRACKER` | `scan`: the kernel marks written pages; `compare`: it can't |
//! | `THAW_DISK_PATH`, `THAW_DISK_BYTES` | of a QEMU that waits for a sandbox: its disk, which nobody serves yet |
//!
//! A QEMU that waits comes as far as its main loop, with a stand-in for its disk and memory that nobody serves; when the disk
//! is served, it gets both. QEMU must not be told to restore before the handshake.
//!
//! A guest whose memory is not served must not run: whatever goes wrong ends the process with status 97.

mod abort;
mod disk;
mod environment;
mod guest_memory;
mod handshake;
mod heap;
mod image;
mod inode;
mod interpose;
mod seccomp;
mod uffd;

/// Checks the environment and gets memory ready before QEMU's `main` runs.
extern "C" fn at_load() {
    environment::read();
    heap::prepare();
}

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;
