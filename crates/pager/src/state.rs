//! What must outlive this process: which pages the VM discarded, and which were found dirty but are in no
//! committed build yet. A file of 64-bit words, mapped:
//!
//! | words | |
//! |---|---|
//! | 0 | the magic number |
//! | 1 | bytes of guest memory |
//! | 2 | 1 while the write marks of pages are being taken: they may be lost if the process ends now |
//! | 512 … | discarded pages, one bit each, padded to 512 words |
//! | … | uncommitted pages, likewise |

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use rustix::fs::ftruncate;

use crate::mmap::SharedWords;
use crate::page_set::{PAGE_BYTES, PageSet, words_for};

const MAGIC: u64 = u64::from_le_bytes(*b"thawpgr1");
const HEAD_WORDS: usize = 512;

pub struct State {
    map: SharedWords,
    pages: u64,
}

impl State {
    /// Makes `file` the state of a VM that has just started: nothing discarded, nothing uncommitted.
    pub fn create(file: OwnedFd, memory_bytes: u64) -> io::Result<Self> {
        let pages = memory_bytes / PAGE_BYTES;
        let words = HEAD_WORDS + 2 * set_words(pages);
        ftruncate(&file, 0)?;
        ftruncate(&file, words as u64 * 8)?;
        let state = Self { map: SharedWords::new(&file, words)?, pages };
        state.map.words()[1].store(memory_bytes, Ordering::Relaxed);
        state.map.words()[0].store(MAGIC, Ordering::Release);
        Ok(state)
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
