//! The diff of a seal: a packed file of the pages stored, or a sparse one that the VMM has written, and the runs that
//! say which pages those are.
//!
//! Runs file: records of 24 bytes, little endian, ascending: `u64 offset` and `u64 length` in bytes of guest
//! memory, `u64 kind`: 1 stored (in a packed file the bytes follow those of the stored runs before, in a sparse one
//! they are at `offset`), 2 zero fill.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU64;

use crate::page;
use crate::page_set::{PAGE_BYTES, PageSet, new_words};
use crate::source::Source;

const KIND_STORED: u64 = 1;
const KIND_ZERO: u64 = 2;

pub struct Diff<'a> {
    /// What the diff is against.
    parent: &'a Source,
    /// The packed file; none if the bytes stay where they are.
    memfile: Option<std::fs::File>,
    /// Whether a page may turn out to be the parent's.
    compare: bool,
    stored: Box<[AtomicU64]>,
    zero: Box<[AtomicU64]>,
    /// Pages added that hold nothing but zeros.
    blank: Box<[AtomicU64]>,
    stored_bytes: u64,
}

enum Verdict {
    Stored,
    Zero,
    Unchanged,
}

impl<'a> Diff<'a> {
    pub fn packed(parent: &'a Source, pages: u64, memfile: OwnedFd, compare: bool) -> Self {
        Self { memfile: Some(memfile.into()), compare, ..Self::sparse(parent, pages) }
    }

    /// A VMM may have written what did not change, too.
    pub fn sparse(parent: &'a Source, pages: u64) -> Self {
        let (stored, zero, blank) = (new_words(pages), new_words(pages), new_words(pages));
        Self { parent, memfile: None, compare: true, stored, zero, blank, stored_bytes: 0 }
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

    /// Pages, ascending over all calls, with their bytes one after another. The bytes are overwritten.
    pub fn add(&mut self, pages: &[Range<u64>], bytes: &mut [u8]) -> io::Result<()> {
        let size = PAGE_BYTES as usize;
        let (mut from, mut kept) = (0, 0);
        for page in pages.iter().cloned().flatten() {
            match self.judge(page, &bytes[from..from + size]) {
                Verdict::Stored => {
                    PageSet::new(&self.stored).insert(page..page + 1);
                    if kept != from {
                        bytes.copy_within(from..from + size, kept);
                    }
                    kept += size;
                }
                Verdict::Zero => PageSet::new(&self.zero).insert(page..page + 1),
                Verdict::Unchanged => {}
            }
            from += size;
        }
        if let Some(memfile) = &self.memfile {
            memfile.write_all_at(&bytes[..kept], self.stored_bytes)?;
        }
        self.stored_bytes += kept as u64;
        Ok(())
    }

    /// Writes the runs. Returns the bytes stored and the bytes that became zero.
    pub fn finish(self, runs: OwnedFd) -> io::Result<(u64, u64)> {
        let (stored, zero) = (PageSet::new(&self.stored), PageSet::new(&self.zero));
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
        std::fs::File::from(runs).write_all_at(&bytes, 0)?;
        Ok((self.stored_bytes, zero.count() * PAGE_BYTES))
    }

    fn judge(&self, page: u64, bytes: &[u8]) -> Verdict {
        let range = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
        let piece = self.parent.piece(range.start);
        let parent = piece.bytes(range);
        if page::is_zero(bytes) {
            PageSet::new(&self.blank).insert(page..page + 1);
            // A parent that stores zeros holds the same bytes: worth no look unless all pages are compared.
            return if parent.is_some_and(|parent| !self.compare || !page::is_same(bytes, parent)) {
                Verdict::Zero
            } else {
                Verdict::Unchanged
            };
        }
        if self.compare && parent.is_some_and(|parent| page::is_same(bytes, parent)) {
            return Verdict::Unchanged;
        }
        Verdict::Stored
    }
}
