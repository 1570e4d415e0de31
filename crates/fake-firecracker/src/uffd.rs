//! Makes the userfaultfd that a pager serves.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use linux_raw_sys::general::{
    UFFD_API, UFFD_FEATURE_EVENT_REMOVE, uffdio_api, uffdio_range, uffdio_register,
};
use linux_raw_sys::ioctl::{UFFDIO_API, UFFDIO_REGISTER};

/// `_IO(0xAA, 0)` on /dev/userfaultfd.
const USERFAULTFD_IOC_NEW: u32 = 0xaa00;
const REGISTER_MODE_MISSING: u64 = 1;

/// Whoever holds it open keeps missing pages from being filled with zeros.
pub struct Uffd {
    fd: OwnedFd,
}

impl Uffd {
    /// One that tells of discards. Kernel-mode faults included: snapshots are written by system calls.
    pub fn open() -> io::Result<Uffd> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        let fd = match File::options().read(true).write(true).open("/dev/userfaultfd") {
            // SAFETY: this request takes its flags by value.
            Ok(device) => unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW as _, flags) },
            // SAFETY: plain arguments.
            Err(_) => unsafe { libc::syscall(libc::SYS_userfaultfd, flags) as i32 },
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor just made, which nobody else knows.
        let uffd = Uffd { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
        let mut api =
            uffdio_api { api: UFFD_API.into(), features: UFFD_FEATURE_EVENT_REMOVE.into(), ioctls: 0 };
        // SAFETY: the structure this request takes.
        unsafe { uffd.ioctl(UFFDIO_API, &mut api) }?;
        Ok(uffd)
    }

    /// Missing pages of the range wait for the pager from now on. Addresses are this process's.
    pub fn register(&self, start: u64, length: u64) -> io::Result<()> {
        let range = uffdio_range { start, len: length };
        let mut register = uffdio_register { range, mode: REGISTER_MODE_MISSING, ioctls: 0 };
        // SAFETY: the structure this request takes.
        unsafe { self.ioctl(UFFDIO_REGISTER, &mut register) }
    }

    /// # Safety
    /// `arg` must be what `request` reads and writes.
    unsafe fn ioctl<T>(&self, request: u32, arg: &mut T) -> io::Result<()> {
        // SAFETY: the caller vouches for `arg`; the descriptor is open.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), request as _, std::ptr::from_mut(arg)) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
