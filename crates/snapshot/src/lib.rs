//! The read side of the snapshot header: which build holds each block of a sandbox's memory or disk, and where.
//!
//! The bytes are described in `spec/formats.md`; `spec/vectors/snapshot-header.json` holds cases for every reader.
//! Headers are made elsewhere: this crate accepts exactly the normal form and answers lookups.

mod build_id;
mod error;
mod header;
mod parse;

pub use build_id::{BuildId, ZERO_FILL, format_build_id, parse_build_id};
pub use error::FormatError;
pub use header::{Entry, Header, Run, Runs};
pub use parse::{ENTRY_BYTES, MAX_OFFSET, METADATA_BYTES, parse};
