//! The disk of a QEMU that waits for a sandbox. What it opens is an empty stand-in of the same size; once the sandbox's own disk
//! is served, that takes the stand-in's place in every descriptor. Until then nothing can be written to it.

use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::atomic::{AtomicI32, Ordering};

use crate::abort::abort;
use crate::environment;
use crate::inode;
use crate::interpose::real_open;

/// What a waiting QEMU is to have as its disk.
pub struct Wanted {
    pub path: CString,
    pub size_bytes: u64,
}

const NONE: c_int = -1;
/// The stand-in, and the flags that it was opened with.
static STAND_IN: AtomicI32 = AtomicI32::new(NONE);
static FLAGS: AtomicI32 = AtomicI32::new(0);

/// Whether QEMU has opened a stand-in.
pub fn is_awaited() -> bool {
    STAND_IN.load(Ordering::Acquire) != NONE
}

/// A descriptor of the stand-in, if `path` is that of a disk to wait for.
///
/// # Safety
/// `path` is a C string.
pub unsafe fn stand_in(path: *const c_char, flags: c_int) -> Option<c_int> {
    let wanted = environment::read().disk.as_ref()?;
    // SAFETY: the caller's promise.
    if unsafe { CStr::from_ptr(path) } != wanted.path.as_c_str() {
        return None;
    }
    if !is_awaited() {
        FLAGS.store(flags, Ordering::Release);
        STAND_IN.store(empty(wanted.size_bytes), Ordering::Release);
    }
    // SAFETY: plain arguments.
    let fd = unsafe { libc::fcntl(STAND_IN.load(Ordering::Acquire), libc::F_DUPFD_CLOEXEC, 0) };
    if fd < 0 { abort("the disk's stand-in can't be opened") } else { Some(fd) }
}

/// Zeros that nobody can change.
fn empty(size_bytes: u64) -> c_int {
    // SAFETY: a C string and plain arguments.
    unsafe {
        let fd = libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
        if fd < 0
            || libc::ftruncate(fd, size_bytes as libc::off_t) != 0
            || libc::fcntl(fd, libc::F_ADD_SEALS, seals) != 0
        {
            abort("the disk's stand-in can't be made");
        }
        fd
    }
}

/// Waits until the disk is served, and puts it in the place of the stand-in. QEMU is not at work with it: its machine is made,
/// and nothing runs on it yet.
pub fn take() {
    let Some(wanted) = environment::read().disk.as_ref() else { return };
    let stand_in = STAND_IN.swap(NONE, Ordering::AcqRel);
    let (seeming, _) = inode::of(stand_in).unwrap_or_else(|| abort("the disk's stand-in is gone"));
    // SAFETY: a C string.
    let disk = unsafe { real_open(wanted.path.as_ptr(), FLAGS.load(Ordering::Acquire), 0) };
    let Some((_, size_bytes)) = inode::of(disk) else { abort("the disk can't be opened") };
    if size_bytes != wanted.size_bytes {
        abort("the disk is of another size");
    }
    // SAFETY: this library's own; nobody else knows it.
    unsafe { libc::close(stand_in) };
    let mut replaced = 0;
    for fd in 0..descriptors_max() {
        if inode::of(fd).is_none_or(|(inode, _)| inode != seeming) {
            continue;
        }
        // SAFETY: plain arguments; whoever holds `fd` means the disk by it.
        if unsafe { libc::dup3(disk, fd, libc::O_CLOEXEC) } < 0 {
            abort("the disk can't be put in place");
        }
        replaced += 1;
    }
    if replaced == 0 {
        abort("nothing uses the disk");
    }
    // SAFETY: its duplicates are in use, this one is not.
    unsafe { libc::close(disk) };
}

fn descriptors_max() -> c_int {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a structure that the call fills.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        abort("the number of descriptors is not known");
    }
    limit.rlim_cur.min(1 << 16) as c_int
}
