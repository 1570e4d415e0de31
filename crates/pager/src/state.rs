//! What must outlive this process: which pages the VM discarded, and which were found dirty but are in no
//! committed build yet. A file of 64-bit words, mapped:
//!
//! | words | |
//! |---|---|
//! | 0 | the magic number |
//! | 1 | bytes of guest memory |
//! | 2 | 1 while the write marks of pages are being taken: they may be lost if the process ends now |
//! | 3 | how the memory began: 0 empty, 1 from a build, 2 as the build's files mapped |
//! | 4 | the number of regions, 0 before the handshake |
//! | 8 … | of each region: its address in the VMM, its bytes, its offset in guest memory |
//! | 512 … | discarded pages, one bit each, padded to 512 words |
//! | … | uncommitted pages, likewise |

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use rustix::fs::{fstat, ftruncate};

use crate::mmap::SharedWords;
use crate::page_set::{PAGE_BYTES, PageSet, words_for};
use crate::regions::{Region, Regions};
use crate::session::Mode;

const MAGIC: u64 = u64::from_le_bytes(*b"thawpgr1");
const HEAD_WORDS: usize = 512;
const REGIONS_AT: usize = 8;
const REGION_WORDS: usize = 3;

pub struct State {
    map: SharedWords,
    pages: u64,
}

impl State {
    /// Makes `file` the state of a VM that has just started: nothing discarded, nothing uncommitted.
    pub fn create(file: OwnedFd, memory_bytes: u64, mode: Mode) -> io::Result<Self> {
        let pages = memory_bytes / PAGE_BYTES;
        let words = HEAD_WORDS + 2 * set_words(pages);
        ftruncate(&file, 0)?;
        ftruncate(&file, words as u64 * 8)?;
        let state = Self { map: SharedWords::new(&file, words)?, pages };
        state.map.words()[1].store(memory_bytes, Ordering::Relaxed);
        let mode = match mode {
            Mode::Boot => 0,
            Mode::Restore => 1,
            Mode::Mapped => 2,
        };
        state.map.words()[3].store(mode, Ordering::Relaxed);
        state.map.words()[0].store(MAGIC, Ordering::Release);
        Ok(state)
    }

    /// Goes on with what a pager that died has left in `file`.
    pub fn adopt(file: OwnedFd, memory_bytes: u64) -> io::Result<Self> {
        let pages = memory_bytes / PAGE_BYTES;
        let words = HEAD_WORDS + 2 * set_words(pages);
        if fstat(&file)?.st_size as u64 != words as u64 * 8 {
            return Err(io::Error::other("the state is of another size"));
        }
        let state = Self { map: SharedWords::new(&file, words)?, pages };
        let word = |at: usize| state.map.words()[at].load(Ordering::Acquire);
        if word(0) != MAGIC || word(1) != memory_bytes {
            return Err(io::Error::other("the state is of another memory"));
        }
        if word(2) != 0 {
            state.uncommitted().insert(0..pages);
            state.map.words()[2].store(0, Ordering::Release);
        }
        Ok(state)
    }

    pub fn mode(&self) -> Mode {
        match self.map.words()[3].load(Ordering::Relaxed) {
            0 => Mode::Boot,
            2 => Mode::Mapped,
            _ => Mode::Restore,
        }
    }

    /// Where the VMM has the memory, for a replacement. More regions than fit are not kept: there is none then.
    pub fn set_regions(&self, regions: &Regions) {
        let words = self.map.words();
        words[4].store(0, Ordering::Release);
        if REGIONS_AT + regions.count() * REGION_WORDS > HEAD_WORDS {
            return;
        }
        for (index, region) in regions.iter().enumerate() {
            let at = REGIONS_AT + index * REGION_WORDS;
            for (word, value) in [region.base, region.size, region.offset].into_iter().enumerate() {
                words[at + word].store(value, Ordering::Relaxed);
            }
        }
        words[4].store(regions.count() as u64, Ordering::Release);
    }

    pub fn has_regions(&self) -> bool {
        self.map.words()[4].load(Ordering::Acquire) != 0
    }

    pub fn regions(&self) -> Result<Regions, String> {
        let words = &self.map.words()[..HEAD_WORDS];
        let count = usize::try_from(words[4].load(Ordering::Acquire)).unwrap_or(usize::MAX);
        if count > (HEAD_WORDS - REGIONS_AT) / REGION_WORDS {
            return Err(format!("{count} regions in the state"));
        }
        let (regions, _) = words[REGIONS_AT..REGIONS_AT + count * REGION_WORDS].as_chunks::<REGION_WORDS>();
        let load = |at: &std::sync::atomic::AtomicU64| at.load(Ordering::Relaxed);
        let regions = regions.iter().map(|[base, size, offset]| Region {
            base: load(base),
            size: load(size),
            offset: load(offset),
        });
        Regions::of(regions.collect(), self.pages * PAGE_BYTES)
    }

    /// Pages the VM discarded at any time. A page that goes missing after that reads as zero, for as long as
    /// the VM lives, so nothing is ever taken out.
    pub fn removed(&self) -> PageSet<'_> {
        self.set(0)
    }

    /// Pages that differ from the last committed build for all we know.
    pub fn uncommitted(&self) -> PageSet<'_> {
        self.set(1)
    }

    /// Runs `take`, which moves write marks from the kernel into `uncommitted`. If that does not come to its
    /// end, any page may have lost its mark, so all of them count as uncommitted.
    pub fn while_taking<E>(&self, take: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let flag = &self.map.words()[2];
        flag.store(1, Ordering::Release);
        let result = take();
        if result.is_err() {
            self.uncommitted().insert(0..self.pages);
        }
        flag.store(0, Ordering::Release);
        result
    }

    fn set(&self, index: usize) -> PageSet<'_> {
        let start = HEAD_WORDS + index * set_words(self.pages);
        PageSet::new(&self.map.words()[start..start + words_for(self.pages)])
    }
}

fn set_words(pages: u64) -> usize {
    words_for(pages).next_multiple_of(512)
}
