//! What one layer knows about each of its blocks, in memory: sparse, written by one thread at a time, read by many.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// Bytes of a block: the unit of layers, tombstones and runs.
pub const BLOCK_BYTES: u64 = 4096;

const CHUNK_BLOCKS: u64 = 4096;

type Chunk = Box<[AtomicU8]>;

/// The flags of one block of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    pub const NONE: Self = Self(0);
    /// The layer's file has the block allocated.
    pub const STORED: Self = Self(1);
    /// Lower layers never show through, whatever becomes of the layer's own block.
    pub const MASKED: Self = Self(2);
    /// The content is zero even if the block is allocated.
    pub const ZERO: Self = Self(4);

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn content(self) -> Content {
        if self.has(Self::ZERO) {
            Content::Zero
        } else if self.has(Self::STORED) {
            Content::Stored
        } else if self.has(Self::MASKED) {
            Content::Zero
        } else {
            Content::Below
        }
    }
}

/// Where a block's content is, as one layer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Stored,
    Zero,
    Below,
}

/// Flags of every block of a layer. One `Flags` is read and written in one step, so that no reader ever sees a block
/// between two states.
pub struct BlockMap {
    blocks: u64,
    chunks: Box<[OnceLock<Chunk>]>,
}

impl BlockMap {
    pub fn new(blocks: u64) -> Self {
        let chunks = (0..blocks.div_ceil(CHUNK_BLOCKS)).map(|_| OnceLock::new()).collect();
        Self { blocks, chunks }
    }

    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    pub fn get(&self, block: u64) -> Flags {
        match self.chunk(block) {
            Some(chunk) => Flags(chunk[(block % CHUNK_BLOCKS) as usize].load(Ordering::Acquire)),
            None => Flags::NONE,
        }
    }

    /// Adds `on` to and takes `off` from every block of `range`. Callers take turns.
    pub fn change(&self, range: Range<u64>, on: Flags, off: Flags) {
        let mut block = range.start;
        while block < range.end {
            let end = range.end.min(next_chunk(block));
            let cell = &self.chunks[(block / CHUNK_BLOCKS) as usize];
            if on != Flags::NONE || cell.get().is_some() {
                let chunk = cell.get_or_init(|| (0..CHUNK_BLOCKS).map(|_| AtomicU8::new(0)).collect());
                for index in block..end {
                    let flags = &chunk[(index % CHUNK_BLOCKS) as usize];
                    let old = Flags(flags.load(Ordering::Relaxed));
                    flags.store(old.with(on).without(off).0, Ordering::Release);
                }
            }
            block = end;
        }
    }

    /// The key of `block` and the end of the run of blocks below `end` that share it.
    pub fn run<K: PartialEq>(&self, block: u64, end: u64, key: impl Fn(Flags) -> K) -> (K, u64) {
        let first = key(self.get(block));
        let untouched = key(Flags::NONE) == first;
        let mut at = block + 1;
        while at < end {
            let stop = end.min(next_chunk(at));
            match self.chunk(at) {
                None if untouched => at = stop,
                None => return (first, at),
                Some(chunk) => {
                    let slice = &chunk[(at % CHUNK_BLOCKS) as usize..][..(stop - at) as usize];
                    let same = |flags: &AtomicU8| key(Flags(flags.load(Ordering::Acquire))) == first;
                    match slice.iter().position(|flags| !same(flags)) {
                        Some(length) => return (first, at + length as u64),
                        None => at = stop,
                    }
                }
            }
        }
        (first, end.max(block + 1))
    }

    /// `range` in runs that share a key. The map may change between two steps.
    pub fn runs<'a, K: PartialEq>(
        &'a self,
        range: Range<u64>,
        key: impl Fn(Flags) -> K + Copy + 'a,
    ) -> impl Iterator<Item = (K, Range<u64>)> + 'a {
        let mut block = range.start;
        std::iter::from_fn(move || {
            let start = block;
            (start < range.end).then(|| {
                let (found, end) = self.run(start, range.end, key);
                block = end;
                (found, start..end)
            })
        })
    }

    fn chunk(&self, block: u64) -> Option<&Chunk> {
        self.chunks[(block / CHUNK_BLOCKS) as usize].get()
    }
}

fn next_chunk(block: u64) -> u64 {
    (block / CHUNK_BLOCKS + 1) * CHUNK_BLOCKS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_wins_over_stored_and_stored_over_masked() {
        let both = Flags::STORED.with(Flags::MASKED);
        assert_eq!(Flags::NONE.content(), Content::Below);
        assert_eq!(Flags::MASKED.content(), Content::Zero);
        assert_eq!(both.content(), Content::Stored);
        assert_eq!(both.with(Flags::ZERO).content(), Content::Zero);
    }

    #[test]
    fn runs_cross_untouched_and_touched_chunks() {
        let map = BlockMap::new(5 * CHUNK_BLOCKS + 7);
        assert_eq!(map.run(0, map.blocks(), Flags::content), (Content::Below, map.blocks()));
        map.change(4000..9000, Flags::STORED, Flags::NONE);
        assert_eq!(map.run(0, map.blocks(), Flags::content), (Content::Below, 4000));
        assert_eq!(map.run(4000, map.blocks(), Flags::content), (Content::Stored, 9000));
        assert_eq!(map.run(4000, 4001, Flags::content), (Content::Stored, 4001));
        assert_eq!(map.run(9000, map.blocks(), Flags::content), (Content::Below, map.blocks()));
        map.change(4000..9000, Flags::NONE, Flags::STORED);
        assert_eq!(map.run(0, map.blocks(), Flags::content), (Content::Below, map.blocks()));
    }
}
