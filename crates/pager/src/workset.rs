//! The working set of a start: the pages that a VM needed until it was of use, those it only read and those it wrote
//! apart. Recorded while its faults are served, kept beside a build, and installed ahead of the faults when that build is
//! restored. A hint: whatever is wrong with it costs time, never content.
//!
//! Its file is a sequence of 64-bit words, little endian: the magic number, the pages of the memory, for each run of
//! pages, in the order in which they were needed, its first page and its length with the kind in bits 62 and 63, and a
//! checksum of all that.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::page_set::{PageSet, new_words};

const MAGIC: u64 = u64::from_le_bytes(*b"thawset1");
const HEAD_WORDS: usize = 2;
const KIND_SHIFT: u32 = 62;
const RUNS_MAX: usize = 1 << 15;
/// Of a run that is noted: its length, no more pages come in at once, and a bit if they are not only guessed.
pub const RUN_PAGES_MAX: u64 = 0xff;
const KNOWN: u64 = 0x100;
const RUN_BITS: u32 = 9;
const BYTES_MAX: u64 = (HEAD_WORDS + 2 * RUNS_MAX + 1) as u64 * 8;

/// What is known of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The VM waited for it, or had before.
    Read,
    /// It came in with another one, or ahead: nobody knows whether the VM looked at it.
    Guessed,
    /// The VM wrote to it.
    Written,
}

/// A run of pages that were needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    pub pages: Range<u64>,
    pub kind: Kind,
}

pub struct Recorder {
    pages: u64,
    /// What came in, in that order: a page and, in the low bits, how many. What does not fit is not recorded.
    runs: Box<[AtomicU64]>,
    count: AtomicUsize,
    written: Box<[AtomicU64]>,
    on: AtomicBool,
}

impl Recorder {
    pub fn new(pages: u64) -> Self {
        let runs = (0..RUNS_MAX).map(|_| AtomicU64::new(0)).collect();
        Self { pages, runs, count: AtomicUsize::new(0), written: new_words(pages), on: AtomicBool::new(true) }
    }

    /// Takes note of at most `RUN_PAGES_MAX` pages.
    pub fn note(&self, pages: Range<u64>, kind: Kind) {
        if self.is_on() && self.count.load(Ordering::Relaxed) < RUNS_MAX {
            let at = self.count.fetch_add(1, Ordering::Relaxed);
            if let Some(run) = self.runs.get(at) {
                let length = (pages.end - pages.start).min(RUN_PAGES_MAX);
                let known = if kind == Kind::Guessed { 0 } else { KNOWN };
                run.store(pages.start << RUN_BITS | known | length, Ordering::Relaxed);
            }
        }
    }

    pub fn note_written(&self, pages: Range<u64>) {
        if self.is_on() {
            PageSet::new(&self.written).insert(pages);
        }
    }

    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    /// Writes what was recorded. Returns the number of pages.
    pub fn write(&self, file: OwnedFd) -> io::Result<u64> {
        let mut words = vec![MAGIC, self.pages];
        let mut count = 0;
        for Needed { pages, kind } in self.needed().into_iter().take(RUNS_MAX) {
            count += pages.end - pages.start;
            words.extend([pages.start, (pages.end - pages.start) | (kind as u64) << KIND_SHIFT]);
        }
        words.push(checksum(&words));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        std::fs::File::from(file).write_all(&bytes)?;
        Ok(count)
    }

    /// Every page once, in runs that are as long as they can be.
    fn needed(&self) -> Vec<Needed> {
        let seen = new_words(self.pages);
        let (seen, written) = (PageSet::new(&seen), PageSet::new(&self.written));
        let mut all: Vec<Needed> = Vec::new();
        let noted = self.runs.iter().take(self.count.load(Ordering::Relaxed));
        for run in noted.map(|run| run.load(Ordering::Relaxed)) {
            let start = run >> RUN_BITS;
            for page in start..start + (run & RUN_PAGES_MAX) {
                if seen.contains(page) {
                    continue;
                }
                seen.insert(page..page + 1);
                let kind = match run & KNOWN {
                    _ if written.contains(page) => Kind::Written,
                    0 => Kind::Guessed,
                    _ => Kind::Read,
                };
                match all.last_mut() {
                    Some(last) if last.pages.end == page && last.kind == kind => last.pages.end += 1,
                    _ => all.push(Needed { pages: page..page + 1, kind }),
                }
            }
        }
        all
    }
}

/// Reads a recorded set of a memory of `pages`.
pub fn read(file: OwnedFd, pages: u64) -> Result<Vec<Needed>, String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::from(file).take(BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    let (words, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() || bytes.len() as u64 > BYTES_MAX {
        return Err(format!("{} bytes", bytes.len()));
    }
    let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let Some((sum, words)) = words.split_last() else { return Err("it is empty".into()) };
    let [MAGIC, of, runs @ ..] = words else { return Err("it is of another kind".into()) };
    if *of != pages || *sum != checksum(words) {
        return Err("it is of another memory, or damaged".into());
    }
    let (runs, rest) = runs.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a run is cut".into());
    }
    let check = |[start, length]: &[u64; 2]| {
        let kind = match length >> KIND_SHIFT {
            0 => Kind::Read,
            1 => Kind::Guessed,
            2 => Kind::Written,
            other => return Err(format!("kind {other}")),
        };
        let (start, length) = (*start, length & ((1 << KIND_SHIFT) - 1));
        if length == 0 || start >= pages || length > pages - start {
            return Err(format!("{length} pages at {start} of {pages}"));
        }
        Ok(Needed { pages: start..start + length, kind })
    };
    runs.iter().map(check).collect()
}

/// FNV-1a over the words.
fn checksum(words: &[u64]) -> u64 {
    words.iter().fold(0xcbf2_9ce4_8422_2325, |sum, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(words: &[u64]) -> OwnedFd {
        let (ours, theirs) = rustix::pipe::pipe().unwrap();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        std::fs::File::from(theirs).write_all(&bytes).unwrap();
        ours
    }

    fn sealed(words: &[u64]) -> OwnedFd {
        file(&[words, &[checksum(words)]].concat())
    }

    fn needed((pages, kind): (Range<u64>, Kind)) -> Needed {
        Needed { pages, kind }
    }

    #[test]
    fn what_was_noted_until_then_comes_back() {
        let recorder = Recorder::new(1000);
        recorder.note(900..1000, Kind::Guessed);
        recorder.note(3..5, Kind::Read);
        recorder.note(4..6, Kind::Read);
        recorder.note_written(4..5);
        recorder.note_written(990..1000);
        // Written, but never told to be needed.
        recorder.note_written(7..8);
        recorder.end();
        recorder.note(1..2, Kind::Read);
        recorder.note_written(3..4);
        let (ours, theirs) = rustix::pipe::pipe().unwrap();
        assert_eq!(recorder.write(theirs).unwrap(), 103);
        let (read_, guessed, written) = (Kind::Read, Kind::Guessed, Kind::Written);
        let expected =
            [(900..990, guessed), (990..1000, written), (3..4, read_), (4..5, written), (5..6, read_)];
        assert_eq!(read(ours, 1000).unwrap(), expected.map(needed));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            vec![],
            vec![0; 4],
            vec![MAGIC],
            vec![MAGIC, 999],
            vec![MAGIC, 1000, 1],
            vec![MAGIC, 1000, 0, 0],
            vec![MAGIC, 1000, 1000, 1],
            vec![MAGIC, 1000, 999, 2],
            vec![MAGIC, 1000, 1, u64::MAX],
        ] {
            assert!(read(sealed(&bad), 1000).is_err(), "{bad:?}");
        }
        assert!(read(file(&[]), 1000).is_err());
        assert_eq!(read(sealed(&[MAGIC, 1000]), 1000).unwrap(), []);
        assert_eq!(read(sealed(&[MAGIC, 1000, 1, 2]), 1000).unwrap(), [needed((1..3, Kind::Read))]);
        let mut changed = vec![MAGIC, 1000, 1, 2];
        changed.push(checksum(&changed) ^ 1);
        assert!(read(file(&changed), 1000).is_err());
    }
}
