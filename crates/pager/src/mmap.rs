//! Maps files into this process.

use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;

use rustix::fs::fstat;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::page_set::PAGE_BYTES;

/// A whole file, readable. The file must not shrink while it is mapped: builds never change.
#[derive(Debug)]
pub struct FileMap {
    address: *mut c_void,
    length: usize,
}

// SAFETY: the mapping is only read, and stays until the value is dropped.
unsafe impl Send for FileMap {}
// SAFETY: as above; shared reads of unchanging memory.
unsafe impl Sync for FileMap {}

impl FileMap {
    pub fn new(file: impl AsFd) -> io::Result<Self> {
        let length = usize::try_from(fstat(&file)?.st_size).map_err(io::Error::other)?;
        if length == 0 {
            return Ok(Self { address: std::ptr::null_mut(), length });
        }
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
        let address =
            unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, 0) }?;
        Ok(Self { address, length })
    }

    pub fn bytes(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: `address..address + length` is mapped readable until drop, and its file does not change.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.length) }
    }
}

/// What is to become of mapped bytes that will be read soon.
#[derive(Clone, Copy)]
pub enum Soon {
    /// They are read from the disk, in the background.
    Fetched,
    /// They are there, in this process's page tables too, when the call returns (Linux 5.14).
    Mapped,
}

/// A hint for bytes of a `FileMap`; whatever becomes of it, they read the same.
pub fn prepare(bytes: &[u8], soon: Soon) {
    let advice = match soon {
        Soon::Fetched => Advice::WillNeed,
        Soon::Mapped => Advice::LinuxPopulateRead,
    };
    let start = bytes.as_ptr().map_addr(|address| address & !(PAGE_BYTES as usize - 1));
    let length = bytes.len() + (bytes.as_ptr() as usize - start as usize);
    // SAFETY: neither advice changes what the memory holds, and the range belongs to a borrowed slice.
    let _ = unsafe { madvise(start.cast_mut().cast(), length, advice) };
}

impl Drop for FileMap {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: the mapping is ours and nobody can hold a slice of it any more. Failing would only leak it.
            let _ = unsafe { munmap(self.address, self.length) };
        }
    }
}

/// The words of a file, shared with whoever maps it later.
#[derive(Debug)]
pub struct SharedWords {
    address: *mut c_void,
    count: usize,
}

// SAFETY: the words are only reached as atomics, and stay mapped until the value is dropped.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the first `count` words; the file must hold at least as many.
    pub fn new(file: impl AsFd, count: usize) -> io::Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
        let address = unsafe { mmap(std::ptr::null_mut(), count * 8, prot, MapFlags::SHARED, file, 0) }?;
        Ok(Self { address, count })
    }

    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `count` aligned words are mapped read-write until drop, and any bit pattern is a valid AtomicU64.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.count) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody can hold a slice of it any more. Failing would only leak it.
        let _ = unsafe { munmap(self.address, self.count * 8) };
    }
}
