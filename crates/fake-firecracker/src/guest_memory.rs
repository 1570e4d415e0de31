//! The guest's memory, as mappings of this process. Addresses are offsets into all of it: a memory file has it so.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::ptr::null_mut;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::dirty_pages::DirtyPages;

pub const PAGE_BYTES: u64 = 4096;

/// Devices have the addresses from here to 4 GiB; more memory than this lies in two regions.
const HOLE_BYTES: u64 = 3 << 30;
const SAVE_BYTES: u64 = 1 << 20;

/// A part of memory and where it is mapped; unmapped when dropped.
struct Mapping {
    base: *mut u8,
    offset: u64,
    size_bytes: u64,
}

/// Where a part of memory is; bytes.
pub struct Region {
    pub base: u64,
    pub offset: u64,
    pub size_bytes: u64,
}

pub struct GuestMemory {
    mappings: Vec<Mapping>,
    pub size_bytes: u64,
    /// What the guest wrote since the last snapshot, where that is tracked.
    pub dirty: Option<DirtyPages>,
    /// Of a file, whose content would be seen again in pages that are discarded.
    of_file: bool,
}

// SAFETY: the mappings are this structure's own. Threads copy bytes in and out and keep no references; the API and the
// guest touch the same pages only while the other one stands still, as a VMM and its processors do.
unsafe impl Send for GuestMemory {}
// SAFETY: as above.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// Zeroed memory; nothing of it is present yet.
    pub fn anonymous(size_bytes: u64, track: bool) -> io::Result<GuestMemory> {
        GuestMemory::map(size_bytes, track, None)
    }

    /// The content of a file, which never sees what is written here. It must be at least as long.
    pub fn private(file: &File, size_bytes: u64, track: bool) -> io::Result<GuestMemory> {
        GuestMemory::map(size_bytes, track, Some(file))
    }

    fn map(size_bytes: u64, track: bool, file: Option<&File>) -> io::Result<GuestMemory> {
        let low = size_bytes.min(HOLE_BYTES);
        let mut mappings = Vec::new();
        for (offset, size_bytes) in [(0, low), (low, size_bytes - low)] {
            if size_bytes > 0 {
                mappings.push(Mapping::new(offset, size_bytes, file)?);
            }
        }
        let dirty = track.then(|| DirtyPages::new(size_bytes));
        Ok(GuestMemory { mappings, size_bytes, dirty, of_file: file.is_some() })
    }

    pub fn regions(&self) -> impl Iterator<Item = Region> + '_ {
        self.mappings.iter().map(|mapping| Region {
            base: mapping.base as u64,
            offset: mapping.offset,
            size_bytes: mapping.size_bytes,
        })
    }

    /// Where the byte at `at` is, and how many bytes follow it there.
    fn place(&self, at: u64) -> (*mut u8, u64) {
        let found = self
            .mappings
            .iter()
            .find(|mapping| (mapping.offset..mapping.offset + mapping.size_bytes).contains(&at));
        let mapping = found.unwrap_or_else(|| panic!("the guest has no memory at {at:#x}"));
        let within = at - mapping.offset;
        // SAFETY: `within` is below the mapping's size.
        (unsafe { mapping.base.add(within as usize) }, mapping.size_bytes - within)
    }

    /// Panics outside of memory, as all of these do.
    pub fn read(&self, mut at: u64, mut into: &mut [u8]) {
        while !into.is_empty() {
            let (from, rest) = self.place(at);
            let count = into.len().min(rest as usize);
            // SAFETY: `count` bytes are mapped at `from`, and `into` is memory of the caller's, not of the guest's.
            unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), count) };
            into = &mut into[count..];
            at += count as u64;
        }
    }

    /// A write of the guest, or of a device for it.
    pub fn write(&self, mut at: u64, mut bytes: &[u8]) {
        if let Some(dirty) = &self.dirty {
            dirty.mark(at..at + bytes.len() as u64);
        }
        while !bytes.is_empty() {
            let (to, rest) = self.place(at);
            let count = bytes.len().min(rest as usize);
            // SAFETY: `count` bytes are mapped at `to`, and `bytes` is memory of the caller's, not of the guest's.
            unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), count) };
            bytes = &bytes[count..];
            at += count as u64;
        }
    }

    /// Writes a part to the same place in a file. The kernel reads it: missing pages fault in kernel mode.
    pub fn save(&self, file: &File, mut at: u64, mut length: u64) -> io::Result<()> {
        while length > 0 {
            let (from, rest) = self.place(at);
            let count = length.min(rest).min(SAVE_BYTES);
            // SAFETY: `count` bytes are mapped at `from`; the guest stands still while it is saved.
            let bytes = unsafe { std::slice::from_raw_parts(from, count as usize) };
            file.write_all_at(bytes, at)?;
            at += count;
            length -= count;
        }
        Ok(())
    }

    /// Gives whole pages back: they read as zero from now on. With userfaultfd this waits until the event was read.
    pub fn discard(&self, at: u64, length: u64) -> io::Result<()> {
        let (start, rest) = self.place(at);
        assert!(length <= rest, "a range lies in one region");
        if self.of_file {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
            // SAFETY: replaces pages of this mapping; nobody keeps references into them.
            unsafe {
                mmap_anonymous(start.cast(), length as usize, ProtFlags::READ | ProtFlags::WRITE, flags)
            }?;
            return Ok(());
        }
        // SAFETY: whole pages of this mapping; nobody keeps references into them.
        Ok(unsafe { madvise(start.cast(), length as usize, Advice::LinuxDontNeed) }?)
    }

    /// The offsets of pages that are present, in order, as mincore tells them.
    pub fn present(&self) -> io::Result<Vec<u64>> {
        let mut pages = Vec::new();
        for mapping in &self.mappings {
            let mut present = vec![0u8; (mapping.size_bytes / PAGE_BYTES) as usize];
            // SAFETY: the whole range is mapped, and `present` has a byte for each of its pages.
            if unsafe {
                libc::mincore(mapping.base.cast(), mapping.size_bytes as usize, present.as_mut_ptr())
            } != 0
            {
                return Err(io::Error::last_os_error());
            }
            let found = present.iter().enumerate().filter(|(_, state)| **state & 1 != 0);
            pages.extend(found.map(|(page, _)| mapping.offset + page as u64 * PAGE_BYTES));
        }
        Ok(pages)
    }
}

impl Mapping {
    fn new(offset: u64, size_bytes: u64, file: Option<&File>) -> io::Result<Mapping> {
        let (length, flags) = (size_bytes as usize, MapFlags::PRIVATE | MapFlags::NORESERVE);
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base = unsafe {
            match file {
                Some(file) => mmap(null_mut(), length, prot, flags, file.as_fd(), offset)?,
                None => mmap_anonymous(null_mut(), length, prot, flags)?,
            }
        };
        let mapping = Mapping { base: base.cast(), offset, size_bytes };
        // SAFETY: the range was mapped just now. A kernel without huge pages refuses, and has none to keep away.
        let _ = unsafe { madvise(base, length, Advice::LinuxNoHugepage) };
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing refers to it any more. It can't fail for a whole mapping.
        let _ = unsafe { munmap(self.base.cast(), self.size_bytes as usize) };
    }
}
