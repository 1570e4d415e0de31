use crate::build_id::{BuildId, ZERO_FILL};
use crate::error::FormatError;

/// One run of blocks that lie together in one build, or a run of zero fill. All values in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub offset: u64,
    pub length: u64,
    pub build: BuildId,
    /// Where the run starts in the build's file; 0 for zero fill.
    pub storage_offset: u64,
}

impl Entry {
    pub fn is_zero(&self) -> bool {
        self.build == ZERO_FILL
    }

    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// A parsed header in normal form: its entries are sorted, cover `[0, size)` without a gap and are as long as they can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Bytes of memory or disk described.
    pub size: u64,
    /// Bytes; a power of two.
    pub block_size: u64,
    /// How many builds lie under this one.
    pub generation: u64,
    pub build: BuildId,
    /// The build at the bottom of the chain.
    pub base: BuildId,
    pub entries: Vec<Entry>,
}

/// Where the bytes from an offset on are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Nil if `is_zero`.
    pub build: BuildId,
    pub is_zero: bool,
    /// Position in the build's file, in bytes; 0 if `is_zero`.
    pub storage_offset: u64,
    /// Bytes from the offset to the end of the run.
    pub remaining: u64,
}

impl Header {
    /// Answers for any byte offset below the size; the cost is a binary search whatever the length of the runs.
    pub fn lookup(&self, offset: u64) -> Result<Run, FormatError> {
        let entry = &self.entries[self.entry_index(offset)?];
        Ok(run_in(entry, offset))
    }

    /// The index of the entry that holds `offset`.
    pub fn entry_index(&self, offset: u64) -> Result<usize, FormatError> {
        if offset >= self.size {
            return Err(FormatError::OutOfRange { offset, size: self.size });
        }
        Ok(self.entries.partition_point(|entry| entry.offset <= offset) - 1)
    }

    /// The runs of `[offset, offset + length)`, ascending, cut to that range, each with its own offset.
    pub fn runs(&self, offset: u64, length: u64) -> Result<Runs<'_>, FormatError> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size);
        let Some(end) = end else {
            return Err(FormatError::OutOfRange { offset, size: self.size });
        };
        let index = if length == 0 { 0 } else { self.entry_index(offset)? };
        Ok(Runs { entries: &self.entries[index..], offset, end })
    }

    /// Every build the entries name, each once, ascending by id.
    pub fn builds(&self) -> Vec<BuildId> {
        let mut builds: Vec<BuildId> = Vec::new();
        for entry in self.entries.iter().filter(|entry| !entry.is_zero()) {
            if let Err(at) = builds.binary_search(&entry.build) {
                builds.insert(at, entry.build);
            }
        }
        builds
    }
}

/// Iterator of [`Header::runs`].
#[derive(Debug, Clone)]
pub struct Runs<'a> {
    entries: &'a [Entry],
    offset: u64,
    end: u64,
}

impl Iterator for Runs<'_> {
    /// The offset of the run and the run, `remaining` being its length within the range.
    type Item = (u64, Run);

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset >= self.end {
            return None;
        }
        let (entry, rest) = self.entries.split_first()?;
        let offset = self.offset;
        let mut run = run_in(entry, offset);
        run.remaining = run.remaining.min(self.end - offset);
        self.offset += run.remaining;
        self.entries = rest;
        Some((offset, run))
    }
}

fn run_in(entry: &Entry, offset: u64) -> Run {
    let shift = offset - entry.offset;
    let is_zero = entry.is_zero();
    let storage_offset = if is_zero { 0 } else { entry.storage_offset + shift };
    Run { build: entry.build, is_zero, storage_offset, remaining: entry.length - shift }
}
