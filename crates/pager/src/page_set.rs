//! Sets of pages as bitmaps, shared between threads and, in the state file, with a later process.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a page; huge pages are refused at the handshake.
pub const PAGE_BYTES: u64 = 4096;

/// A set of page numbers below a fixed count. Each word is changed atomically; a set as a whole is not.
#[derive(Clone, Copy)]
pub struct PageSet<'a> {
    words: &'a [AtomicU64],
}

/// The words of a set that lives in this process only.
pub fn new_words(pages: u64) -> Box<[AtomicU64]> {
    (0..words_for(pages)).map(|_| AtomicU64::new(0)).collect()
}

/// How many 64-bit words hold `pages` bits.
pub fn words_for(pages: u64) -> usize {
    pages.div_ceil(64) as usize
}

impl<'a> PageSet<'a> {
    pub fn new(words: &'a [AtomicU64]) -> Self {
        Self { words }
    }

    pub fn contains(&self, page: u64) -> bool {
        self.words[(page / 64) as usize].load(Ordering::Relaxed) >> (page % 64) & 1 == 1
    }

    pub fn insert(&self, pages: Range<u64>) {
        for_each_word(pages, |word, mask| {
            self.words[word].fetch_or(mask, Ordering::Relaxed);
        });
    }

    pub fn remove(&self, pages: Range<u64>) {
        for_each_word(pages, |word, mask| {
            self.words[word].fetch_and(!mask, Ordering::Relaxed);
        });
    }

    /// Leaves only what is in `other` too.
    pub fn keep(&self, other: PageSet<'_>) {
        self.words.iter().zip(other.words).for_each(|(word, other)| {
            word.fetch_and(other.load(Ordering::Relaxed), Ordering::Relaxed);
        });
    }

    /// Leaves only what is not in `other`.
    pub fn subtract(&self, other: PageSet<'_>) {
        self.words.iter().zip(other.words).for_each(|(word, other)| {
            word.fetch_and(!other.load(Ordering::Relaxed), Ordering::Relaxed);
        });
    }

    /// Takes in what is in `other`.
    pub fn add(&self, other: PageSet<'_>) {
        self.words.iter().zip(other.words).for_each(|(word, other)| {
            word.fetch_or(other.load(Ordering::Relaxed), Ordering::Relaxed);
        });
    }

    pub fn clear(&self) {
        for word in self.words {
            word.store(0, Ordering::Relaxed);
        }
    }

    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// The bits of pages `64 * index ..`.
    pub fn word(&self, index: usize) -> u64 {
        self.words[index].load(Ordering::Relaxed)
    }

    pub fn set_word(&self, index: usize, value: u64) {
        self.words[index].store(value, Ordering::Relaxed);
    }

    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// The maximal runs of pages in the set, ascending.
    pub fn runs(&self) -> Runs<'a> {
        Runs { set: *self, page: 0 }
    }

    /// The blocks of `size` pages with any page of the set, joined where they touch, ascending. They may end beyond the words.
    pub fn blocks(&self, size: u64) -> impl Iterator<Item = Range<u64>> + use<'a> {
        let mut runs =
            self.runs().map(move |run| run.start / size * size..run.end.next_multiple_of(size)).peekable();
        std::iter::from_fn(move || {
            let mut block = runs.next()?;
            while let Some(next) = runs.next_if(|next| next.start <= block.end) {
                block.end = block.end.max(next.end);
            }
            Some(block)
        })
    }

    /// The first page at or after `from` whose membership is `wanted`, or the end of the words.
    fn next(&self, from: u64, wanted: bool) -> u64 {
        let mut index = (from / 64) as usize;
        let mut skip = !0u64 << (from % 64);
        while index < self.words.len() {
            let word = self.word(index);
            let found = if wanted { word } else { !word } & skip;
            if found != 0 {
                return index as u64 * 64 + u64::from(found.trailing_zeros());
            }
            skip = !0;
            index += 1;
        }
        self.words.len() as u64 * 64
    }
}

/// Iterator of [`PageSet::runs`].
pub struct Runs<'a> {
    set: PageSet<'a>,
    page: u64,
}

impl Iterator for Runs<'_> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        let start = self.set.next(self.page, true);
        if start == self.set.words.len() as u64 * 64 {
            return None;
        }
        self.page = self.set.next(start, false);
        Some(start..self.page)
    }
}

fn for_each_word(pages: Range<u64>, mut each: impl FnMut(usize, u64)) {
    let mut page = pages.start;
    while page < pages.end {
        let end = (page / 64 * 64 + 64).min(pages.end);
        let count = end - page;
        let bits = if count == 64 { !0 } else { (1 << count) - 1 };
        each((page / 64) as usize, bits << (page % 64));
        page = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_across_words_come_back_as_runs() {
        let words = new_words(300);
        let set = PageSet::new(&words);
        set.insert(0..1);
        set.insert(60..130);
        set.insert(255..300);
        set.remove(64..66);
        assert_eq!(set.runs().collect::<Vec<_>>(), [0..1, 60..64, 66..130, 255..300]);
        assert_eq!(set.count(), 1 + 4 + 64 + 45);
        assert!(set.contains(63) && !set.contains(64) && set.contains(299));
        set.clear();
        assert_eq!(set.runs().next(), None);
    }

    #[test]
    fn blocks_are_whole_and_joined() {
        let words = new_words(300);
        let set = PageSet::new(&words);
        set.insert(3..4);
        set.insert(15..17);
        set.insert(100..101);
        set.insert(109..110);
        set.insert(120..121);
        assert_eq!(set.blocks(10).collect::<Vec<_>>(), [0..20, 100..110, 120..130]);
        set.insert(0..300);
        assert_eq!(set.blocks(512).collect::<Vec<_>>(), vec![0..512]);
    }

    #[test]
    fn a_full_set_is_one_run() {
        let words = new_words(128);
        let set = PageSet::new(&words);
        set.insert(0..128);
        assert_eq!(set.runs().collect::<Vec<_>>(), vec![0..128]);
    }
}
