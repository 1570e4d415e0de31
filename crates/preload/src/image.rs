//! The memory image of a build, mapped in pieces: each run of its header straight from the file that stores it. What the
//! guest reads is the page cache's then, shared with every other guest of the build; what it writes is its own.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

use libc::{c_int, off_t, size_t};
use thaw_snapshot::{BuildId, Entry, Header, parse, parse_build_id};

use crate::abort::abort;
use crate::environment::variable;
use crate::interpose::real_mmap;

const PAGE_BYTES: u64 = 4096;

pub struct Image {
    header: Header,
    builds: BTreeMap<BuildId, File>,
}

impl Image {
    /// Takes what the keeper handed over; ends the process if that is no whole image.
    pub fn take() -> Self {
        let file = inherited(&variable("THAW_MEM_HEADER_FD"));
        let mut bytes = vec![0; file.metadata().map_or(0, |metadata| metadata.len() as usize)];
        if file.read_exact_at(&mut bytes, 0).is_err() {
            abort("the memory's header can't be read");
        }
        let header = parse(&bytes).unwrap_or_else(|error| abort(&format!("the memory's header: {error}")));
        let builds = variable("THAW_MEM_BUILDS").split_terminator(',').map(build).collect();
        let image = Self { header, builds };
        if image.header.block_size != PAGE_BYTES {
            abort("the memory's blocks are no pages");
        }
        image.stored().for_each(|entry| image.check(entry));
        image
    }

    /// Maps the image over `length` bytes of private memory at `start`. Where it is zero, that memory stays.
    pub fn map(&self, start: *mut c_void, length: size_t, prot: c_int) {
        if self.header.size != length as u64 {
            abort("the memory's header is of another size");
        }
        for entry in self.stored() {
            let at = start.wrapping_byte_add(entry.offset as usize);
            let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE;
            let (fd, from) = (self.builds[&entry.build].as_raw_fd(), entry.storage_offset as off_t);
            // SAFETY: the entry lies within the header's size, and so in memory that the caller has just mapped.
            if unsafe { real_mmap(at, entry.length as size_t, prot, flags, fd, from) } != at {
                abort("a piece of the memory can't be mapped");
            }
        }
    }

    fn stored(&self) -> impl Iterator<Item = &Entry> {
        self.header.entries.iter().filter(|entry| !entry.is_zero())
    }

    /// A file that ends too early would kill the guest when it gets there.
    fn check(&self, entry: &Entry) {
        let Some(file) = self.builds.get(&entry.build) else {
            abort("a build that the memory's header names is not there");
        };
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        if entry.storage_offset.checked_add(entry.length).is_none_or(|end| end > bytes) {
            abort("a build stores less of the memory than its header says");
        }
    }
}

/// `BUILD=DESCRIPTOR`
fn build(text: &str) -> (BuildId, File) {
    let named = text.split_once('=').and_then(|(id, fd)| Some((parse_build_id(id)?, fd)));
    let Some((id, fd)) = named else { abort("THAW_MEM_BUILDS is no list of builds") };
    (id, inherited(fd))
}

fn inherited(text: &str) -> File {
    let fd = text.parse().unwrap_or(-1);
    // SAFETY: plain arguments.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        abort("the memory's header or builds are no descriptors");
    }
    // SAFETY: it is open, the keeper's gift to this library, and named once.
    unsafe { File::from_raw_fd(fd) }
}
