//! The file that says which blocks of a layer hide lower layers.
//!
//! Two bits a block, four blocks a byte, the first block in the lowest bits, no header; bytes past the end are zero, so
//! an empty file means "none". Bit 0 (masked): lower layers never show through. Bit 1 (zero): the content is zero even
//! if the layer's file has the block. Both bits of a block lie in one byte and reach the disk together. A block reads as
//! zero if its zero bit is set; else as the layer's file if that has the block; else as zero if masked; else from below.
//!
//! Why this survives a crash at any point without ordering the two files' writes: turning a block to zero sets both
//! bits and only frees the file's block once they are on disk; writing a zero block writes its data first and then
//! clears the zero bit, never the masked one, so that lost data leaves zeros and not the parent's bytes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::block_map::{BlockMap, Flags};

const BLOCKS_PER_BYTE: u64 = 4;
const BUFFER_BYTES: usize = 64 * 1024;
const MASKED_BIT: u8 = 1;
const ZERO_BIT: u8 = 2;

/// Adds what the file says to `map`. Bits past the map's end are ignored.
pub fn load(file: &File, map: &BlockMap) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut position = 0;
    loop {
        let length = file.read_at(&mut buffer, position)?;
        if length == 0 {
            return Ok(());
        }
        for (at, byte) in buffer[..length].iter().enumerate().filter(|(_, byte)| **byte != 0) {
            let first = (position + at as u64) * BLOCKS_PER_BYTE;
            for index in 0..BLOCKS_PER_BYTE {
                let flags = decode(byte >> (2 * index));
                if flags != Flags::NONE && first + index < map.blocks() {
                    map.change(first + index..first + index + 1, flags, Flags::NONE);
                }
            }
        }
        position += length as u64;
    }
}

/// Writes the bits of `range` as they are after adding `on` and taking `off`, then changes `map` in the same way. On an
/// error the file and the map still agree: the blocks before the failure are changed in both.
pub fn change(file: &File, map: &BlockMap, range: Range<u64>, on: Flags, off: Flags) -> io::Result<()> {
    let mut block = range.start;
    while block < range.end {
        let first_byte = block / BLOCKS_PER_BYTE;
        let end = range.end.min((first_byte + BUFFER_BYTES as u64) * BLOCKS_PER_BYTE);
        let bytes: Vec<u8> = (first_byte..end.div_ceil(BLOCKS_PER_BYTE))
            .map(|byte| encode(map, byte * BLOCKS_PER_BYTE, &(block..end), on, off))
            .collect();
        let (written, result) = crate::layer::write_prefix(file, &bytes, first_byte);
        let reached = end.min((first_byte + written) * BLOCKS_PER_BYTE).max(block);
        map.change(block..reached, on, off);
        result?;
        block = end;
    }
    Ok(())
}

fn encode(map: &BlockMap, first: u64, range: &Range<u64>, on: Flags, off: Flags) -> u8 {
    let mut byte = 0;
    for index in (0..BLOCKS_PER_BYTE).filter(|index| first + index < map.blocks()) {
        let mut flags = map.get(first + index);
        if range.contains(&(first + index)) {
            flags = flags.with(on).without(off);
        }
        let masked = if flags.has(Flags::MASKED) { MASKED_BIT } else { 0 };
        let zero = if flags.has(Flags::ZERO) { ZERO_BIT } else { 0 };
        byte |= (masked | zero) << (2 * index);
    }
    byte
}

fn decode(bits: u8) -> Flags {
    let masked = if bits & MASKED_BIT != 0 { Flags::MASKED } else { Flags::NONE };
    if bits & ZERO_BIT != 0 { masked.with(Flags::ZERO) } else { masked }
}
