//! The stack that a read goes through.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::base::Base;
use crate::block_map::{BLOCK_BYTES, Content};
use crate::layer::Layer;
use crate::store::Turn;

/// ```text
///   top            the guest writes here
///   uncommitted    what the top was before a rotate; until the commit
///   base           header and builds
/// ```
#[derive(Clone)]
pub struct Layers {
    pub top: Arc<Layer>,
    pub uncommitted: Option<Arc<Layer>>,
    pub base: Arc<Base>,
}

enum Source<'a> {
    Layer(&'a Layer),
    Base,
    Zero,
}

impl Layers {
    pub fn read(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset + out.len() as u64;
        let mut at = offset;
        while at < end {
            let (source, run_end) = self.find(at / BLOCK_BYTES, end.div_ceil(BLOCK_BYTES));
            let stop = end.min(run_end * BLOCK_BYTES);
            let part = &mut out[(at - offset) as usize..(stop - offset) as usize];
            match source {
                Source::Layer(layer) => layer.read(part, at)?,
                Source::Base => self.base.read(part, at)?,
                Source::Zero => part.fill(0),
            }
            at = stop;
        }
        Ok(())
    }

    /// Writes whole blocks to the top; blocks of zeros are cleared instead of stored.
    pub fn write(&self, turn: &Turn, first: u64, data: &[u8]) -> io::Result<()> {
        let blocks = data.len() as u64 / BLOCK_BYTES;
        let bytes = |range: Range<u64>| &data[(range.start * BLOCK_BYTES) as usize..][..bytes_of(&range)];
        let mut start = 0;
        while start < blocks {
            let zero = is_zero(bytes(start..start + 1));
            let end = (start + 1..blocks).find(|at| is_zero(bytes(*at..at + 1)) != zero).unwrap_or(blocks);
            if zero {
                self.clear(turn, first + start..first + end)?;
            } else {
                self.top.store(turn, first + start, bytes(start..end))?;
            }
            start = end;
        }
        Ok(())
    }

    /// Makes whole blocks zero.
    pub fn clear(&self, turn: &Turn, range: Range<u64>) -> io::Result<()> {
        self.top.clear(turn, range, |block, end| self.held_below_top(block, end))
    }

    fn held_below_top(&self, block: u64, end: u64) -> (bool, u64) {
        let (content, end) = match &self.uncommitted {
            Some(layer) => layer.content(block, end),
            None => (Content::Below, end),
        };
        match content {
            Content::Stored => (true, end),
            Content::Zero => (false, end),
            Content::Below => self.base.holds(block, end),
        }
    }

    fn find(&self, block: u64, mut end: u64) -> (Source<'_>, u64) {
        for layer in [Some(&self.top), self.uncommitted.as_ref()].into_iter().flatten() {
            let (content, run_end) = layer.content(block, end);
            end = run_end;
            match content {
                Content::Stored => return (Source::Layer(layer), end),
                Content::Zero => return (Source::Zero, end),
                Content::Below => {}
            }
        }
        (Source::Base, end)
    }
}

fn bytes_of(range: &Range<u64>) -> usize {
    ((range.end - range.start) * BLOCK_BYTES) as usize
}

fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}
