//! `thaw-pager probe DEVICE`: tries on memory of its own what a VM's memory needs of this kernel, and prints it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use linux_raw_sys::general::{
    UFFD_API, UFFD_FEATURE_EVENT_REMOVE, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_WP_ASYNC, uffdio_api,
    uffdio_range, uffdio_register,
};
use linux_raw_sys::ioctl::{UFFDIO_API, UFFDIO_REGISTER};
use serde_json::{Value, json};

use crate::page_set::PAGE_BYTES;
use crate::pagemap::{Pagemap, can_scan};
use crate::uffd::{Install, Uffd};

/// `_IO(0xAA, 0)` on /dev/userfaultfd.
const USERFAULTFD_IOC_NEW: libc::Ioctl = 0xaa00;
const REGISTER_MODE_MISSING: u64 = 1;
const REGISTER_MODE_WP: u64 = 2;

/// `{"userfaultfd": null | reason, "tracker": "scan" | "compare"}`
pub fn probe(device: &str) -> Value {
    let scan = can_scan();
    let problem = serve_one_page(device, scan).err().map(|error| error.to_string());
    json!({"userfaultfd": problem, "tracker": if scan { "scan" } else { "compare" }})
}

/// Installs a page from here, reads it, and, where writes can be tracked, sees that only a write counts as one.
fn serve_one_page(device: &str, scan: bool) -> io::Result<()> {
    let device = File::options().read(true).write(true).open(device)?;
    // SAFETY: this request takes flags by value.
    let fd =
        unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, libc::O_CLOEXEC | libc::O_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut features = UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    if scan {
        features |= UFFD_FEATURE_WP_ASYNC;
    }
    let mut api = uffdio_api { api: u64::from(UFFD_API), features: u64::from(features), ioctls: 0 };
    // SAFETY: the structure this request takes.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API as _, &raw mut api) })?;
    let page = map_page()?;
    let mode = if scan { REGISTER_MODE_MISSING | REGISTER_MODE_WP } else { REGISTER_MODE_MISSING };
    let range = uffdio_range { start: page as u64, len: PAGE_BYTES };
    let mut register = uffdio_register { range, mode, ioctls: 0 };
    // SAFETY: the structure this request takes.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_REGISTER as _, &raw mut register) })?;
    let uffd = Uffd::adopt(fd.as_fd().try_clone_to_owned()?, page as u64, PAGE_BYTES)?;
    match uffd.copy(page as u64, &[0xa5; PAGE_BYTES as usize], scan, true) {
        Install::Done => {}
        other => return Err(io::Error::other(format!("a page can't be installed: {other:?}"))),
    }
    // SAFETY: the page is mapped, and present by now.
    if unsafe { page.read_volatile() } != 0xa5 {
        return Err(io::Error::other("a page that was installed reads as something else"));
    }
    if !scan {
        return Ok(());
    }
    if written(page as u64)? != 0 {
        return Err(io::Error::other("a page that nobody wrote to counts as written"));
    }
    // SAFETY: as above; its protection is lifted by the kernel.
    unsafe { page.write_volatile(1) };
    if written(page as u64)? != PAGE_BYTES {
        return Err(io::Error::other("a page that was written to does not count as written"));
    }
    Ok(())
}

fn written(page: u64) -> io::Result<u64> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let uid = rustix::process::getuid().as_raw();
    let mut bytes = 0;
    Pagemap::open(own, uid)?
        .take_written(page..page + PAGE_BYTES, false, |found| bytes += found.end - found.start)?;
    Ok(bytes)
}

/// Stays mapped: this process ends soon.
fn map_page() -> io::Result<*mut u8> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE_BYTES as usize, prot, flags, -1, 0) };
    if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(page.cast()) }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
