//! Which pages the guest wrote: stands for KVM's dirty log.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::guest_memory::PAGE_BYTES;

pub struct DirtyPages {
    words: Vec<AtomicU64>,
}

impl DirtyPages {
    pub fn new(size_bytes: u64) -> DirtyPages {
        let words = (size_bytes / PAGE_BYTES).div_ceil(64);
        DirtyPages { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Marks every page that has a byte of the range.
    pub fn mark(&self, range: Range<u64>) {
        for page in range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES) {
            self.words[(page / 64) as usize].fetch_or(1 << (page % 64), Ordering::Relaxed);
        }
    }

    pub fn clear(&self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// The offsets of the marked pages, in order.
    pub fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        let bits = |(index, word): (usize, &AtomicU64)| {
            let word = word.load(Ordering::Relaxed);
            (0..64)
                .filter(move |bit| word >> bit & 1 != 0)
                .map(move |bit| (index as u64 * 64 + bit) * PAGE_BYTES)
        };
        self.words.iter().enumerate().flat_map(bits)
    }
}
