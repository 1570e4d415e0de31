//! Makes the userfaultfd and registers the guest's memory.

use linux_raw_sys::general::{
    UFFD_API, UFFD_FEATURE_EVENT_REMOVE, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_WP_ASYNC, uffdio_api,
    uffdio_range, uffdio_register,
};
use linux_raw_sys::ioctl::{UFFDIO_API, UFFDIO_REGISTER};

use crate::abort::abort;

/// `_IO(0xAA, 0)` on /dev/userfaultfd.
const USERFAULTFD_IOC_NEW: libc::c_ulong = 0xaa00;
const REGISTER_MODE_MISSING: u64 = 1;
const REGISTER_MODE_WP: u64 = 2;

/// Stays open for as long as the process lives: without it the kernel would fill missing pages with zeros.
pub struct Uffd {
    fd: i32,
}

impl Uffd {
    /// Uses up `device`. Kernel-mode faults included: QEMU reads and writes guest memory by system calls.
    pub fn open(device: i32, scan: bool) -> Self {
        // SAFETY: this request takes flags by value; the descriptor is the keeper's gift to this library.
        let fd = unsafe { libc::ioctl(device, USERFAULTFD_IOC_NEW, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        if fd < 0 {
            abort("no userfaultfd");
        }
        // SAFETY: nobody else knows this descriptor, and it is not used again.
        unsafe { libc::close(device) };
        let uffd = Self { fd };
        let mut features = UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_PAGEFAULT_FLAG_WP;
        if scan {
            features |= UFFD_FEATURE_WP_ASYNC;
        }
        let mut api = uffdio_api { api: u64::from(UFFD_API), features: u64::from(features), ioctls: 0 };
        // SAFETY: the structure this request takes.
        if unsafe { libc::ioctl(fd, UFFDIO_API as libc::c_ulong, &raw mut api) } != 0 {
            abort("this kernel's userfaultfd lacks a feature");
        }
        uffd
    }

    /// A boot registers for write protection only, and so for discards: its missing pages are the kernel's
    /// business. Nothing is protected until the kernel marks writes, so nothing waits for the pager either. The same
    /// goes for a mapped build; there it also keeps the kernel from mapping neighbours that nobody asked for.
    pub fn register(&self, start: u64, length: u64, restore: bool, scan: bool) {
        let mode = match (restore, scan) {
            (true, true) => REGISTER_MODE_MISSING | REGISTER_MODE_WP,
            (true, false) => REGISTER_MODE_MISSING,
            (false, _) => REGISTER_MODE_WP,
        };
        let range = uffdio_range { start, len: length };
        let mut register = uffdio_register { range, mode, ioctls: 0 };
        // SAFETY: the structure this request takes.
        if unsafe { libc::ioctl(self.fd, UFFDIO_REGISTER as libc::c_ulong, &raw mut register) } != 0 {
            abort("the guest's memory can't be registered");
        }
    }

    pub fn raw(&self) -> i32 {
        self.fd
    }
}
