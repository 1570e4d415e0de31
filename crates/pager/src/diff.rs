//! The diff of a seal: a packed file of the pages stored, or a sparse one that the VMM has written, and the runs that
//! say which pages those are.
//!
//! Runs file: records of 24 bytes, little endian, ascending: `u64 offset` and `u64 length` in bytes of guest
//! memory, `u64 kind`: 1 stored (in a packed file the bytes follow those of the stored runs before, in a sparse one
//! they are at `offset`), 2 zero fill.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::{FallocateFlags, fallocate};

use crate::page;
use crate::page_set::{PAGE_BYTES, PageSet, new_words};
use crate::source::Source;

const KIND_STORED: u64 = 1;
const KIND_ZERO: u64 = 2;

pub struct Diff {
    /// What the diff is against.
    parent: Arc<Source>,
    content: Content,
    /// Whether a page may turn out to be the parent's.
    compare: bool,
    /// Pages that may, whatever is known of the others.
    doubtful: Box<[AtomicU64]>,
    stored: Box<[AtomicU64]>,
    zero: Box<[AtomicU64]>,
    /// Pages added that hold nothing but zeros.
    blank: Box<[AtomicU64]>,
}

/// Where the bytes of stored pages go.
enum Content {
    Packed {
        file: File,
        bytes: u64,
    },
    /// At their own offsets: a page may come again.
    Sparse {
        file: File,
        written: Box<[AtomicU64]>,
    },
    /// They are where they belong already.
    Kept,
}

/// Pages to be stored, and where their bytes are among those added.
struct Place {
    pages: Range<u64>,
    at: usize,
}

enum Verdict {
    Stored,
    Zero,
    Unchanged,
}

impl Diff {
    pub fn packed(parent: Arc<Source>, pages: u64, memfile: OwnedFd, compare: bool) -> Self {
        Self::new(parent, pages, Content::Packed { file: memfile.into(), bytes: 0 }, compare)
    }

    /// Of pages that are known to have been written, into a sparse file.
    pub fn sparse(parent: Arc<Source>, pages: u64, memfile: OwnedFd) -> Self {
        let content = Content::Sparse { file: memfile.into(), written: new_words(pages) };
        Self::new(parent, pages, content, false)
    }

    /// Of a file that a VMM has written. It may have written what did not change, too.
    pub fn kept(parent: Arc<Source>, pages: u64) -> Self {
        Self::new(parent, pages, Content::Kept, true)
    }

    /// These pages may turn out to be the parent's, whatever is known of the others.
    pub fn doubting(self, pages: PageSet<'_>) -> Self {
        PageSet::new(&self.doubtful).add(pages);
        self
    }

    /// From now on a page may turn out to be the parent's.
    pub fn comparing(self, compare: bool) -> Self {
        Self { compare, ..self }
    }

    fn new(parent: Arc<Source>, pages: u64, content: Content, compare: bool) -> Self {
        let [stored, zero, blank, doubtful] = std::array::from_fn(|_| new_words(pages));
        Self { parent, content, compare, doubtful, stored, zero, blank }
    }

    pub fn blank(&self) -> PageSet<'_> {
        PageSet::new(&self.blank)
    }

    /// Pages that read as zero; they count where the parent's do not.
    pub fn add_zero(&mut self, pages: Range<u64>) {
        let mut offset = pages.start * PAGE_BYTES;
        let end = pages.end * PAGE_BYTES;
        while offset < end {
            let piece = self.parent.piece(offset);
            let to = piece.range.end.min(end);
            if !piece.is_zero() {
                PageSet::new(&self.zero).insert(offset / PAGE_BYTES..to / PAGE_BYTES);
            }
            offset = to;
        }
    }

    /// Pages with their bytes one after another; for a packed file ascending over all calls. The bytes are overwritten.
    pub fn add(&mut self, pages: &[Range<u64>], bytes: &mut [u8]) -> io::Result<()> {
        let size = PAGE_BYTES as usize;
        let (mut from, mut kept) = (0, 0);
        let mut places: Vec<Place> = Vec::new();
        for page in pages.iter().cloned().flatten() {
            match self.judge(page, &bytes[from..from + size]) {
                Verdict::Stored => {
                    PageSet::new(&self.stored).insert(page..page + 1);
                    if kept != from {
                        bytes.copy_within(from..from + size, kept);
                    }
                    match places.last_mut().filter(|place| place.pages.end == page) {
                        Some(place) => place.pages.end += 1,
                        None => places.push(Place { pages: page..page + 1, at: kept }),
                    }
                    kept += size;
                }
                Verdict::Zero => PageSet::new(&self.zero).insert(page..page + 1),
                Verdict::Unchanged => {}
            }
            from += size;
        }
        match &mut self.content {
            Content::Packed { file, bytes: end } => {
                file.write_all_at(&bytes[..kept], *end)?;
                *end += kept as u64;
            }
            Content::Sparse { file, written } => {
                for Place { pages, at } in places {
                    let length = ((pages.end - pages.start) * PAGE_BYTES) as usize;
                    file.write_all_at(&bytes[at..at + length], pages.start * PAGE_BYTES)?;
                    PageSet::new(written).insert(pages);
                }
            }
            Content::Kept => {}
        }
        Ok(())
    }

    /// Of the pages added until now, only these count: the others come again, or are gone.
    pub fn keep_only(&mut self, pages: PageSet<'_>) {
        PageSet::new(&self.stored).keep(pages);
        PageSet::new(&self.zero).keep(pages);
    }

    /// Writes the runs. Returns the bytes stored and the bytes that became zero.
    pub fn finish(self, runs: OwnedFd) -> io::Result<(u64, u64)> {
        let (stored, zero) = (PageSet::new(&self.stored), PageSet::new(&self.zero));
        if let Content::Sparse { file, written } = &self.content {
            let written = PageSet::new(written);
            written.subtract(stored);
            written.runs().try_for_each(|pages| punch(file, pages))?;
        }
        let mut stored_runs = stored.runs().peekable();
        let mut zero_runs = zero.runs().peekable();
        let mut bytes = Vec::new();
        loop {
            let stored_first = match (stored_runs.peek(), zero_runs.peek()) {
                (None, None) => break,
                (Some(stored), Some(zero)) => stored.start < zero.start,
                (stored, _) => stored.is_some(),
            };
            let (next, kind) =
                if stored_first { (stored_runs.next(), KIND_STORED) } else { (zero_runs.next(), KIND_ZERO) };
            let Some(run) = next else { break };
            for word in [run.start * PAGE_BYTES, (run.end - run.start) * PAGE_BYTES, kind] {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        File::from(runs).write_all_at(&bytes, 0)?;
        Ok((stored.count() * PAGE_BYTES, zero.count() * PAGE_BYTES))
    }

    fn judge(&self, page: u64, bytes: &[u8]) -> Verdict {
        let range = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
        let piece = self.parent.piece(range.start);
        let parent = piece.bytes(range);
        let compare = self.compare || PageSet::new(&self.doubtful).contains(page);
        if page::is_zero(bytes) {
            PageSet::new(&self.blank).insert(page..page + 1);
            // A parent that stores zeros holds the same bytes: worth no look unless pages are compared.
            return if parent.is_some_and(|parent| !compare || !page::is_same(bytes, parent)) {
                Verdict::Zero
            } else {
                Verdict::Unchanged
            };
        }
        if compare && parent.is_some_and(|parent| page::is_same(bytes, parent)) {
            return Verdict::Unchanged;
        }
        Verdict::Stored
    }
}

/// Gives back the room of pages in a file that has each at its own offset.
pub fn punch(file: &File, pages: Range<u64>) -> io::Result<()> {
    let length = (pages.end - pages.start) * PAGE_BYTES;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, flags, pages.start * PAGE_BYTES, length)?)
}
