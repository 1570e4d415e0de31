//! A VMM's side of userfaultfd: memory, its registration and the handshake's regions.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use linux_raw_sys::general::{UFFD_API, uffdio_api, uffdio_range, uffdio_register};
use linux_raw_sys::ioctl::{UFFDIO_API, UFFDIO_REGISTER};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub const PAGE: usize = 4096;
pub const MISSING: u64 = 1;
pub const WP: u64 = 2;

/// Private anonymous memory, never freed: the process that has it ends soon.
pub struct Memory {
    /// The address of each page.
    pages: Vec<*mut u8>,
    /// Address and bytes of each region, in the order of guest memory.
    pub regions: Vec<(usize, usize)>,
}

// SAFETY: threads of the stand-in only read and write whole words, as a guest's processors do.
unsafe impl Sync for Memory {}

impl Memory {
    /// Regions of so many pages each. The later ones lie lower in the address space.
    pub fn new(region_pages: &[usize]) -> Self {
        let total: usize = region_pages.iter().map(|pages| pages + 1).sum::<usize>() * PAGE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), total, prot, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        // SAFETY: the range was mapped just now.
        unsafe { libc::madvise(base, total, libc::MADV_NOHUGEPAGE) };
        let (mut pages, mut regions) = (Vec::new(), Vec::new());
        let mut end = base as usize + total;
        for count in region_pages {
            end -= (count + 1) * PAGE;
            regions.push((end, count * PAGE));
            pages.extend((0..*count).map(|page| (end + page * PAGE) as *mut u8));
        }
        Self { pages, regions }
    }

    /// Maps a page of a file over one of memory, privately.
    pub fn map(&self, page: usize, file: &File, offset: u64) {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let at = self.pages[page].cast();
        // SAFETY: over a page of our own, which nobody has looked at yet.
        let mapped = unsafe { libc::mmap(at, PAGE, prot, flags, file.as_raw_fd(), offset as libc::off_t) };
        assert_eq!(mapped, at, "{}", io::Error::last_os_error());
    }

    /// A private mapping of a file that holds so many pages.
    #[allow(dead_code, reason = "of the program that measures restores")]
    pub fn of_file(file: &File, pages: usize) -> Self {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), pages * PAGE, prot, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        assert_ne!(base, libc::MAP_FAILED);
        let pages: Vec<*mut u8> = (0..pages).map(|page| base.wrapping_byte_add(page * PAGE).cast()).collect();
        Self { regions: vec![(base as usize, pages.len() * PAGE)], pages }
    }

    pub fn count(&self) -> usize {
        self.pages.len()
    }

    pub fn read(&self, page: usize) -> Vec<u64> {
        // SAFETY: every page stays mapped and aligned.
        (0..512).map(|word| unsafe { self.pages[page].cast::<u64>().add(word).read_volatile() }).collect()
    }

    pub fn read_word(&self, page: usize, word: usize) -> u64 {
        assert!(word < PAGE / 8);
        // SAFETY: as above.
        unsafe { self.pages[page].cast::<u64>().add(word).read_volatile() }
    }

    pub fn write_word(&self, page: usize, word: usize, value: u64) {
        // SAFETY: as above, and `word` is below 512.
        unsafe { self.pages[page].cast::<u64>().add(word).write_volatile(value) };
    }

    pub fn address(&self, page: usize) -> *mut u8 {
        self.pages[page]
    }

    pub fn discard(&self, page: usize, count: usize) {
        // SAFETY: pages of our own, in one region; nobody keeps references into them.
        let result = unsafe { libc::madvise(self.pages[page].cast(), count * PAGE, libc::MADV_DONTNEED) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }

    /// Moves pages elsewhere in the address space.
    pub fn relocate(&mut self, page: usize, count: usize) {
        // SAFETY: as above; the kernel chooses the new place.
        let moved = unsafe {
            libc::mremap(
                self.pages[page].cast(),
                count * PAGE,
                count * PAGE,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                hole(count),
            )
        };
        assert_ne!(moved, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        for index in 0..count {
            self.pages[page + index] = (moved as usize + index * PAGE) as *mut u8;
        }
    }

    pub fn unmap(&self, page: usize, count: usize) {
        // SAFETY: as above; these pages are not used again.
        assert_eq!(unsafe { libc::munmap(self.pages[page].cast(), count * PAGE) }, 0);
    }

    /// Registers all regions with a new userfaultfd; none of them if `mode` is 0.
    pub fn register(&self, features: u32, mode: u64) -> OwnedFd {
        // SAFETY: plain arguments.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        assert!(fd >= 0, "userfaultfd: {}", io::Error::last_os_error());
        // SAFETY: a descriptor just made.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let mut api = uffdio_api { api: u64::from(UFFD_API), features: u64::from(features), ioctls: 0 };
        // SAFETY: the structure this request takes.
        let done = unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API as _, &raw mut api) };
        assert_eq!(done, 0, "features {features:#x}: {}", io::Error::last_os_error());
        for (start, length) in self.regions.iter().filter(|_| mode != 0) {
            let range = uffdio_range { start: *start as u64, len: *length as u64 };
            let mut register = uffdio_register { range, mode, ioctls: 0 };
            // SAFETY: the structure this request takes.
            let done = unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_REGISTER as _, &raw mut register) };
            assert_eq!(done, 0, "mode {mode}: {}", io::Error::last_os_error());
        }
        fd
    }

    /// The handshake's JSON.
    pub fn json(&self) -> String {
        let mut offset = 0;
        let regions: Vec<String> = self
            .regions
            .iter()
            .map(|(base, size)| {
                let start = offset;
                offset += size;
                format!(
                    r#"{{"base_host_virt_addr":{base},"size":{size},"offset":{start},"page_size_kib":4096}}"#
                )
            })
            .collect();
        format!("[{}]", regions.join(","))
    }
}

/// Sends bytes with descriptors beside them.
pub fn send(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    }
    sendmsg(socket.as_fd(), &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
}

/// A place with room for so many pages.
fn hole(count: usize) -> *mut libc::c_void {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice; the caller maps over it.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), count * PAGE, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(place, libc::MAP_FAILED);
    place
}
