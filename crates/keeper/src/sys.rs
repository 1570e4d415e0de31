//! Process-wide kernel state that Rust cannot check, and the time stamp counter.

use std::io;
use std::os::fd::RawFd;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

/// Closes everything above stderr that the starter of this process left open.
pub fn close_inherited() -> io::Result<()> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        open.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // SAFETY: called first in the process, so no object of ours owns any of these numbers; the directory
        // stream's own is closed already and answers EBADF, which is ignored.
        unsafe { rustix::io::close(fd) };
    }
    Ok(())
}

/// A mount namespace of this process alone. What the host unmounts disappears here too (so nothing of the host
/// is pinned), what is mounted here is never seen by the host.
pub fn own_mount_namespace() -> io::Result<()> {
    // SAFETY: a mount namespace does not affect memory or descriptors, and the process has one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

#[cfg(target_arch = "x86_64")]
pub fn read_counter() -> u64 {
    // SAFETY: RDTSC reads a counter and touches no memory; every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}
