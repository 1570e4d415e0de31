//! The working set of a start: the pages that a VM needed until it was of use. Recorded while its faults are served,
//! kept beside the next build, and installed ahead of the faults when that build is restored. A hint: whatever is
//! wrong with it costs time, never content.
//!
//! In a file: `u64 first page, u64 pages` for each run, ascending, little endian.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::page_set::{PageSet, new_words};

/// 128 MiB of single pages.
const RUNS_MAX: u64 = 1 << 15;
const RUN_BYTES: u64 = 16;
/// What is installed ahead at most.
const PAGES_MAX: u64 = 1 << 14;
/// Every so many-th group of pages is left to its faults: what nobody asks for any more is forgotten that way.
const SAMPLE: u64 = 8;
const GROUP_PAGES: u64 = 16;

pub struct Recorder {
    words: Box<[AtomicU64]>,
    on: AtomicBool,
}

impl Recorder {
    pub fn new(pages: u64) -> Self {
        Self { words: new_words(pages), on: AtomicBool::new(true) }
    }

    pub fn note(&self, pages: Range<u64>) {
        if self.on.load(Ordering::Relaxed) {
            self.add(pages);
        }
    }

    pub fn add(&self, pages: Range<u64>) {
        PageSet::new(&self.words).insert(pages);
    }

    /// True if it had not ended before.
    pub fn end(&self) -> bool {
        self.on.swap(false, Ordering::Relaxed)
    }

    /// Writes what was recorded. Returns the number of pages.
    pub fn write(&self, file: OwnedFd) -> io::Result<u64> {
        let set = PageSet::new(&self.words);
        let mut bytes = Vec::new();
        for run in set.runs().take(RUNS_MAX as usize) {
            bytes.extend_from_slice(&run.start.to_le_bytes());
            bytes.extend_from_slice(&(run.end - run.start).to_le_bytes());
        }
        std::fs::File::from(file).write_all(&bytes)?;
        Ok(set.count())
    }
}

/// Reads a recorded set. With `sample`, the groups whose turn it is are left out.
pub fn read(file: OwnedFd, pages: u64, sample: Option<u64>) -> Result<VecDeque<Range<u64>>, String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::from(file).take(RUNS_MAX * RUN_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    let (runs, rest) = bytes.as_chunks::<{ RUN_BYTES as usize }>();
    if !rest.is_empty() || bytes.len() as u64 > RUNS_MAX * RUN_BYTES {
        return Err(format!("{} bytes", bytes.len()));
    }
    let mut set = VecDeque::new();
    let (mut end, mut left) = (0, PAGES_MAX);
    for run in runs {
        let word = |at: usize| u64::from_le_bytes(run.as_chunks::<8>().0[at]);
        let (start, length) = (word(0), word(1));
        if start < end || length == 0 || start >= pages || length > pages - start {
            return Err(format!("{length} pages at {start} of {pages}"));
        }
        end = start + length;
        let mut from = start;
        while from < end && left > 0 {
            let to = (from - from % GROUP_PAGES + GROUP_PAGES).min(end).min(from + left);
            if sample.is_none_or(|turn| (from / GROUP_PAGES) % SAMPLE != turn % SAMPLE) {
                left -= to - from;
                match set.back_mut() {
                    Some(Range { end, .. }) if *end == from => *end = to,
                    _ => set.push_back(from..to),
                }
            }
            from = to;
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> OwnedFd {
        let (ours, theirs) = rustix::pipe::pipe().unwrap();
        std::fs::File::from(theirs).write_all(bytes).unwrap();
        ours
    }

    fn runs(of: &[(u64, u64)]) -> Vec<u8> {
        of.iter().flat_map(|(start, length)| [start.to_le_bytes(), length.to_le_bytes()].concat()).collect()
    }

    #[test]
    fn what_was_noted_until_then_comes_back() {
        let recorder = Recorder::new(1000);
        recorder.note(3..5);
        recorder.note(5..6);
        recorder.note(900..1000);
        recorder.end();
        recorder.note(1..2);
        let (ours, theirs) = rustix::pipe::pipe().unwrap();
        assert_eq!(recorder.write(theirs).unwrap(), 103);
        assert_eq!(read(ours, 1000, None).unwrap(), [3..6, 900..1000]);
    }

    #[test]
    fn an_eighth_is_left_out_in_turn() {
        let all = runs(&[(0, 256)]);
        let mut missing = Vec::new();
        for turn in 0..8 {
            let set = read(file(&all), 256, Some(turn)).unwrap();
            let held: u64 = set.iter().map(|run| run.end - run.start).sum();
            assert_eq!(held, 256 - 32);
            missing.extend((0..256u64).filter(|page| !set.iter().any(|run| run.contains(page))));
        }
        missing.sort_unstable();
        assert_eq!(missing, (0..256).collect::<Vec<_>>());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            vec![1],
            runs(&[(0, 0)]),
            runs(&[(5, 2), (6, 1)]),
            runs(&[(1000, 1)]),
            runs(&[(999, 2)]),
            runs(&[(1, u64::MAX)]),
        ] {
            assert!(read(file(&bad), 1000, None).is_err(), "{bad:?}");
        }
        assert_eq!(read(file(&[]), 1000, None).unwrap(), []);
        let much = read(file(&runs(&[(0, 1 << 20)])), 1 << 20, None).unwrap();
        assert_eq!(much.iter().map(|run| run.end - run.start).sum::<u64>(), PAGES_MAX);
    }
}
