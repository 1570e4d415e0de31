use std::fmt;

/// Why bytes are no header, or why an offset has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormatError {
    /// Shorter than the metadata, or the entries do not fill the rest. Holds the length in bytes.
    Truncated { bytes: usize },
    /// A version this reader does not know.
    Version(u64),
    /// Zero or no power of two, in bytes.
    BlockSize(u64),
    /// Zero, above 2^53 or no multiple of the block size, in bytes.
    Size(u64),
    /// Above 2^53.
    Generation(u64),
    /// The header's own build or its base is the nil UUID.
    NilBuild,
    /// Entry `index` is wrong.
    Entry { index: usize, reason: &'static str },
    /// The entries end before the size, in bytes.
    Uncovered { end: u64, size: u64 },
    /// A lookup at or past the size, in bytes.
    OutOfRange { offset: u64, size: u64 },
}

impl fmt::Display for FormatError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { bytes } => write!(out, "a header can't be {bytes} bytes long: it is truncated"),
            Self::Version(version) => write!(out, "header version {version} is not supported"),
            Self::BlockSize(size) => write!(out, "block size {size} is not a power of two"),
            Self::Size(size) => {
                write!(out, "size {size} is zero, above 2^53 or not a multiple of the block size")
            }
            Self::Generation(generation) => write!(out, "generation {generation} is above 2^53"),
            Self::NilBuild => write!(out, "the build or base id is the nil UUID"),
            Self::Entry { index, reason } => write!(out, "entry {index}: {reason}"),
            Self::Uncovered { end, size } => write!(out, "the entries end at {end}, the size is {size}"),
            Self::OutOfRange { offset, size } => write!(out, "offset {offset} is beyond the size {size}"),
        }
    }
}

impl std::error::Error for FormatError {}
