use crate::build_id::{BuildId, ZERO_FILL};
use crate::error::FormatError;
use crate::header::{Entry, Header};

/// Bytes of metadata before the entries.
pub const METADATA_BYTES: usize = 64;
/// Bytes of one entry.
pub const ENTRY_BYTES: usize = 40;
/// The largest size, offset or generation: what every reader's number type holds exactly.
pub const MAX_OFFSET: u64 = 1 << 53;

const VERSION: u64 = 1;

/// Reads a whole header. Costs time and memory in proportion to `bytes`, whatever they say.
pub fn parse(bytes: &[u8]) -> Result<Header, FormatError> {
    let truncated = FormatError::Truncated { bytes: bytes.len() };
    let Some((metadata, rest)) = bytes.split_first_chunk::<METADATA_BYTES>() else {
        return Err(truncated);
    };
    let version = u64_at(metadata, 0);
    if version != VERSION {
        return Err(FormatError::Version(version));
    }
    let (chunks, cut) = rest.as_chunks::<ENTRY_BYTES>();
    if !cut.is_empty() {
        return Err(truncated);
    }
    let header = Header {
        block_size: u64_at(metadata, 8),
        size: u64_at(metadata, 16),
        generation: u64_at(metadata, 24),
        build: id_at(metadata, 32),
        base: id_at(metadata, 48),
        entries: chunks.iter().map(entry_of).collect(),
    };
    check_metadata(&header)?;
    check_entries(&header)?;
    Ok(header)
}

fn check_metadata(header: &Header) -> Result<(), FormatError> {
    if !header.block_size.is_power_of_two() {
        return Err(FormatError::BlockSize(header.block_size));
    }
    if header.size == 0 || header.size > MAX_OFFSET || !header.size.is_multiple_of(header.block_size) {
        return Err(FormatError::Size(header.size));
    }
    if header.generation > MAX_OFFSET {
        return Err(FormatError::Generation(header.generation));
    }
    if header.build == ZERO_FILL || header.base == ZERO_FILL {
        return Err(FormatError::NilBuild);
    }
    Ok(())
}

fn check_entries(header: &Header) -> Result<(), FormatError> {
    let mut end = 0;
    let mut before: Option<&Entry> = None;
    for (index, entry) in header.entries.iter().enumerate() {
        check_entry(header, entry, end, before).map_err(|reason| FormatError::Entry { index, reason })?;
        end = entry.end();
        before = Some(entry);
    }
    if end != header.size {
        return Err(FormatError::Uncovered { end, size: header.size });
    }
    Ok(())
}

fn check_entry(header: &Header, entry: &Entry, end: u64, before: Option<&Entry>) -> Result<(), &'static str> {
    if entry.offset != end {
        return Err("does not start where the entry before ends");
    }
    if entry.length == 0 || !entry.length.is_multiple_of(header.block_size) {
        return Err("length is zero or not a multiple of the block size");
    }
    if entry.length > header.size - end {
        return Err("reaches past the size");
    }
    if !entry.storage_offset.is_multiple_of(header.block_size) {
        return Err("storage offset is not a multiple of the block size");
    }
    if entry.storage_offset > MAX_OFFSET - entry.length {
        return Err("storage ends above 2^53");
    }
    if entry.is_zero() && entry.storage_offset != 0 {
        return Err("zero fill has a storage offset");
    }
    if before.is_some_and(|before| continues(before, entry)) {
        return Err("continues the entry before: the two are one run");
    }
    Ok(())
}

fn continues(before: &Entry, entry: &Entry) -> bool {
    before.build == entry.build
        && (entry.is_zero() || before.storage_offset + before.length == entry.storage_offset)
}

fn entry_of(bytes: &[u8; ENTRY_BYTES]) -> Entry {
    Entry {
        offset: u64_at(bytes, 0),
        length: u64_at(bytes, 8),
        build: id_at(bytes, 16),
        storage_offset: u64_at(bytes, 32),
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn id_at(bytes: &[u8], at: usize) -> BuildId {
    let mut id = ZERO_FILL;
    id.copy_from_slice(&bytes[at..at + 16]);
    id
}
