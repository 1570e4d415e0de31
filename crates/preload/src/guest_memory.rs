//! The one mapping that is the guest's memory.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libc::{off_t, size_t};

use crate::abort::abort;
use crate::disk;
use crate::environment::{self, Mode};
use crate::handshake::{Region, shake_hands};
use crate::image::Image;
use crate::inode::{self, Inode};
use crate::interpose::real_mmap;
use crate::seccomp::forbid_mremap;
use crate::uffd::Uffd;

static TAKEN: AtomicBool = AtomicBool::new(false);
static START: AtomicUsize = AtomicUsize::new(0);
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// The backend's file, once it is mapped.
static BACKEND: OnceLock<Inode> = OnceLock::new();

/// Whether a descriptor is the memory backend's file.
pub fn is_backend(fd: c_int) -> bool {
    if fd < 0 {
        return false;
    }
    let Some((opened, _)) = inode::of(fd) else { return false };
    if let Some(backend) = BACKEND.get() {
        return opened == *backend;
    }
    inode::at(&environment::read().memory_path) == Some(opened) && BACKEND.set(opened).is_ok()
}

/// Whether a range touches the guest's memory.
pub fn overlaps(address: usize, length: usize) -> bool {
    let (start, size) = (START.load(Ordering::Acquire), LENGTH.load(Ordering::Acquire));
    size > 0 && address < start + size && start < address.saturating_add(length)
}

/// Whether what `advice` discards would come back as the build's content instead of as zero.
pub fn must_stay(advice: c_int) -> bool {
    let discards = [libc::MADV_DONTNEED, libc::MADV_DONTNEED_LOCKED, libc::MADV_FREE, libc::MADV_REMOVE]
        .contains(&advice);
    discards && environment::read().mode == Mode::Mapped
}

/// Maps private memory in place of the file: a build's image, or memory that the pager serves.
pub fn map(address: *mut c_void, length: size_t, prot: c_int, flags: c_int, offset: off_t) -> *mut c_void {
    if flags & libc::MAP_SHARED == 0 {
        abort("the memory backend is not mapped shared: it would be saved with the device state");
    }
    if TAKEN.swap(true, Ordering::SeqCst) {
        abort("the memory backend is mapped twice");
    }
    if offset != 0 {
        abort("the memory backend is not mapped from its start");
    }
    // It holds nothing, and another QEMU that starts here may have memory of another size.
    // SAFETY: a C string. One that can't be removed is no worse than one that stays.
    unsafe { libc::unlink(environment::read().memory_path.as_ptr()) };
    // Where QEMU wants it: inside the range it reserved.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | flags & libc::MAP_FIXED;
    // SAFETY: the same place and length that QEMU was about to map the file to.
    let start = unsafe { real_mmap(address, length, prot, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        abort("the guest's memory can't be mapped");
    }
    let environment = environment::read();
    if environment.mode == Mode::Mapped {
        Image::take().map(start, length, prot);
        forbid_mremap();
    }
    // SAFETY: the range was mapped just now. A kernel without huge pages refuses, and has none to keep away.
    unsafe { libc::syscall(libc::SYS_madvise, start, length, libc::MADV_NOHUGEPAGE) };
    START.store(start as usize, Ordering::Release);
    LENGTH.store(length, Ordering::Release);
    if !disk::is_awaited() {
        hand_over();
    } else if std::thread::Builder::new().name("wait".into()).spawn(wait).is_err() {
        abort("nobody can wait for the disk");
    }
    start
}

/// Beside a QEMU that has nothing to do until it is told what to restore.
fn wait() {
    // SAFETY: a set of our own; signals are for QEMU's threads.
    unsafe {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
    }
    disk::take();
    let (start, length) = (START.load(Ordering::Acquire), LENGTH.load(Ordering::Acquire));
    // Whatever QEMU wrote to a machine without a past would hide what is restored.
    // SAFETY: the guest's memory, which nothing runs on.
    if unsafe { libc::syscall(libc::SYS_madvise, start, length, libc::MADV_DONTNEED) } != 0 {
        abort("the guest's memory can't be emptied");
    }
    hand_over();
}

/// Gives the memory to the pager.
fn hand_over() {
    let environment = environment::read();
    let (start, length) = (START.load(Ordering::Acquire) as u64, LENGTH.load(Ordering::Acquire) as u64);
    let uffd = Uffd::open(environment.uffd_device, environment.scan);
    // Without write marks there is nothing to register files for; the pager gets a userfaultfd that tells of nothing.
    if environment.mode != Mode::Mapped || environment.scan {
        uffd.register(start, length, environment.mode == Mode::Restore, environment.scan);
    }
    shake_hands(&environment.pager_socket, &[Region { base: start, size: length, offset: 0 }], uffd.raw());
}
