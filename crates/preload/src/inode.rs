//! Which file is meant.

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;

/// A file, by whatever name or descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Inode {
    device: libc::dev_t,
    number: libc::ino_t,
}

/// What a descriptor is of, and its size in bytes.
pub fn of(fd: c_int) -> Option<(Inode, u64)> {
    // SAFETY: the structure is writable.
    filled(|stat| unsafe { libc::fstat(fd, stat) })
}

/// What a path leads to.
pub fn at(path: &CStr) -> Option<Inode> {
    // SAFETY: a C string, and the structure is writable.
    filled(|stat| unsafe { libc::stat(path.as_ptr(), stat) }).map(|(inode, _)| inode)
}

fn filled(fill: impl FnOnce(*mut libc::stat) -> c_int) -> Option<(Inode, u64)> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    if fill(stat.as_mut_ptr()) != 0 {
        return None;
    }
    // SAFETY: the call has filled it.
    let stat = unsafe { stat.assume_init() };
    Some((Inode { device: stat.st_dev, number: stat.st_ino }, stat.st_size as u64))
}
