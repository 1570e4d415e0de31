//! /proc/PID/pagemap: which pages of the VMM are there, and which were written.
//! See `Documentation/admin-guide/mm/pagemap.rst` of the kernel.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use linux_raw_sys::general::{
    PAGE_IS_FILE, PAGE_IS_PFNZERO, PAGE_IS_PRESENT, PAGE_IS_SWAPPED, PAGE_IS_WRITTEN, PM_SCAN_CHECK_WPASYNC,
    PM_SCAN_WP_MATCHING, page_region, pm_scan_arg,
};

use crate::page_set::PAGE_BYTES;

/// `_IOWR('f', 16, struct pm_scan_arg)`.
pub const PAGEMAP_SCAN: u32 = 0xc060_6610;
const RANGES_PER_CALL: usize = 4096;
const ENTRIES_PER_READ: u64 = 64 * 1024;
const ENTRY_PRESENT: u64 = 1 << 63;
const ENTRY_SWAPPED: u64 = 1 << 62;
const ENTRY_FILE: u64 = 1 << 61;

/// The page map of one process. It stays bound to the memory that the process had when it was opened.
pub struct Pagemap {
    file: File,
}

/// A run of pages that are there.
pub struct Found {
    pub addresses: Range<u64>,
    /// They are the kernel's shared zero page.
    pub zero: bool,
    /// They are a mapped file's, and so never written here.
    pub file: bool,
}

impl Pagemap {
    /// Opens the map of `pid`, which must run as `uid`.
    pub fn open(pid: i32, uid: u32) -> io::Result<Self> {
        Self::adopt(File::open(format!("/proc/{pid}/pagemap"))?, uid)
    }

    /// Takes an open map, which must be that of a process of `uid`.
    pub fn adopt(file: File, uid: u32) -> io::Result<Self> {
        let owner = rustix::fs::fstat(&file)?.st_uid;
        if owner != uid {
            return Err(io::Error::other(format!("the process belongs to uid {owner}, not {uid}")));
        }
        Ok(Self { file })
    }

    /// Reports the pages written since they were last protected, and protects them in the same step.
    /// Needs memory registered for asynchronous write tracking: `PermissionDenied` otherwise. `own`: not those of mapped
    /// files, which were never protected and never written.
    pub fn take_written(
        &self,
        range: Range<u64>,
        own: bool,
        mut each: impl FnMut(Range<u64>),
    ) -> io::Result<()> {
        let flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC;
        self.scan(&written(own, flags), range, |found| each(found.start..found.end))
    }

    /// Reports the pages written since they were last protected, and changes nothing. As `take_written`.
    pub fn written(&self, range: Range<u64>, own: bool, mut each: impl FnMut(Range<u64>)) -> io::Result<()> {
        self.scan(&written(own, PM_SCAN_CHECK_WPASYNC), range, |found| each(found.start..found.end))
    }

    /// Reports the pages that are present or swapped out, those of the zero page apart, and with `files` those of files:
    /// to tell them the kernel has to look at every page itself.
    pub fn present(&self, range: Range<u64>, files: bool, mut each: impl FnMut(Found)) -> io::Result<()> {
        let query = Query {
            flags: 0,
            inverted: 0,
            all_of: 0,
            any_of: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            report: PAGE_IS_PFNZERO | if files { PAGE_IS_FILE } else { 0 },
        };
        self.scan(&query, range, |found| {
            let is = |category: u32| found.categories & u64::from(category) != 0;
            let (zero, file) = (is(PAGE_IS_PFNZERO), is(PAGE_IS_FILE));
            each(Found { addresses: found.start..found.end, zero, file });
        })
    }

    /// Whether the process still has its memory. Once it is ending nothing is there, and none of the calls above fails.
    pub fn is_alive(&self) -> io::Result<bool> {
        // Any page has an entry, also where nothing is mapped.
        let mut entry = [0; 8];
        Ok(self.file.read_at(&mut entry, 0)? == entry.len())
    }

    /// As `present`, on any kernel; the zero page is not told apart.
    pub fn present_by_entries(&self, range: Range<u64>, mut each: impl FnMut(Found)) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut run = Found { addresses: range.start..range.start, zero: false, file: false };
        let mut page = range.start / PAGE_BYTES;
        let end = range.end / PAGE_BYTES;
        while page < end {
            let count = (end - page).min(ENTRIES_PER_READ);
            bytes.resize(count as usize * 8, 0);
            self.file.read_exact_at(&mut bytes, page * 8)?;
            for entry in bytes.as_chunks::<8>().0 {
                let address = page * PAGE_BYTES;
                page += 1;
                let entry = u64::from_ne_bytes(*entry);
                if entry & (ENTRY_PRESENT | ENTRY_SWAPPED) == 0 {
                    continue;
                }
                let file = entry & ENTRY_FILE != 0;
                if run.addresses.end != address || run.file != file {
                    let next = Found { addresses: address..address, zero: false, file };
                    report(std::mem::replace(&mut run, next), &mut each);
                }
                run.addresses.end = address + PAGE_BYTES;
            }
        }
        report(run, &mut each);
        Ok(())
    }

    /// A call that comes back with fewer ranges than there was room for has seen everything. Going on by the
    /// kernel's `walk_end` instead would report the tail twice: it is stale when the end of the range was reached.
    fn scan(&self, query: &Query, range: Range<u64>, mut each: impl FnMut(&page_region)) -> io::Result<()> {
        let mut ranges = vec![page_region { start: 0, end: 0, categories: 0 }; RANGES_PER_CALL];
        let mut start = range.start;
        while start < range.end {
            let count = scan_once(&self.file, query, start..range.end, &mut ranges)?;
            ranges[..count].iter().for_each(&mut each);
            if count < ranges.len() {
                break;
            }
            start = ranges[count - 1].end;
        }
        Ok(())
    }
}

/// Whether this kernel has PAGEMAP_SCAN, and with it asynchronous write tracking (both came with 6.7).
pub fn can_scan() -> bool {
    let probe = || -> io::Result<usize> {
        let file = File::open("/proc/self/pagemap")?;
        let query =
            Query { flags: 0, inverted: 0, all_of: 0, any_of: PAGE_IS_PRESENT, report: PAGE_IS_PRESENT };
        let mut ranges = [page_region { start: 0, end: 0, categories: 0 }];
        let page = std::ptr::from_ref(&query) as u64 & !(PAGE_BYTES - 1);
        scan_once(&file, &query, page..page + PAGE_BYTES, &mut ranges)
    };
    probe().is_ok_and(|count| count == 1)
}

struct Query {
    flags: u32,
    /// Categories whose absence counts.
    inverted: u32,
    all_of: u32,
    any_of: u32,
    report: u32,
}

/// Pages that are there, are not the zero page (`own`: nor a file's) and were written to.
fn written(own: bool, flags: u32) -> Query {
    let without = PAGE_IS_PFNZERO | if own { PAGE_IS_FILE } else { 0 };
    Query {
        flags,
        inverted: without,
        all_of: PAGE_IS_WRITTEN | without,
        any_of: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        report: PAGE_IS_WRITTEN,
    }
}

fn scan_once(file: &File, query: &Query, range: Range<u64>, ranges: &mut [page_region]) -> io::Result<usize> {
    let mut arg = pm_scan_arg {
        size: size_of::<pm_scan_arg>() as u64,
        flags: u64::from(query.flags),
        start: range.start,
        end: range.end,
        walk_end: 0,
        vec: ranges.as_mut_ptr() as u64,
        vec_len: ranges.len() as u64,
        max_pages: 0,
        category_inverted: u64::from(query.inverted),
        category_mask: u64::from(query.all_of),
        category_anyof_mask: u64::from(query.any_of),
        return_mask: u64::from(query.report),
    };
    // SAFETY: `arg` is the structure this request takes; the kernel writes at most `vec_len` elements to `ranges`.
    let count =
        unsafe { libc::ioctl(file.as_fd().as_raw_fd(), PAGEMAP_SCAN as _, std::ptr::from_mut(&mut arg)) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

fn report(run: Found, each: &mut impl FnMut(Found)) {
    if !run.addresses.is_empty() {
        each(run);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_memory_of_a_process_that_ended_is_not_alive() {
        let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let map = Pagemap::open(child.id() as i32, rustix::process::geteuid().as_raw()).unwrap();
        assert!(map.is_alive().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!map.is_alive().unwrap());
        // Nothing else tells.
        map.present(0..1 << 30, false, |_| panic!("it is there")).unwrap();
    }
}
