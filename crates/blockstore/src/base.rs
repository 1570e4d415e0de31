//! The immutable layers: a header and the files of the builds it names.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use thaw_control::ControlError;
use thaw_snapshot::{BuildId, ENTRY_BYTES, Header, METADATA_BYTES, format_build_id, parse};

use crate::block_map::BLOCK_BYTES;

/// What lies under the writable layers; an empty base is zero everywhere, as is everything past its header's size.
#[derive(Default)]
pub struct Base {
    header: Option<Header>,
    builds: HashMap<BuildId, File>,
}

impl Base {
    /// Checks that the header fits a disk of `size_bytes` and that every build it names has a file.
    pub fn open(
        header: &File,
        builds: HashMap<BuildId, File>,
        size_bytes: u64,
    ) -> Result<Self, ControlError> {
        let header = read_header(header, size_bytes)?;
        if !header.block_size.is_multiple_of(BLOCK_BYTES) {
            return Err(ControlError::invalid(format!("header blocks of {} bytes", header.block_size)));
        }
        if header.size > size_bytes {
            let message = format!("the header covers {} bytes, the disk has {size_bytes}", header.size);
            return Err(ControlError::invalid(message));
        }
        if let Some(missing) = header.builds().iter().find(|build| !builds.contains_key(*build)) {
            let message = format!("no file for build {}", format_build_id(missing));
            return Err(ControlError::invalid(message));
        }
        Ok(Self { header: Some(header), builds })
    }

    /// Whether `block` has content other than zero fill, and the end of that answer's run, at most `end`.
    pub fn holds(&self, block: u64, end: u64) -> (bool, u64) {
        let run = self.header.as_ref().and_then(|header| header.lookup(block * BLOCK_BYTES).ok());
        match run {
            Some(run) => (!run.is_zero, end.min(block + run.remaining / BLOCK_BYTES)),
            None => (false, end),
        }
    }

    pub fn read(&self, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !out.is_empty() {
            let run = self.header.as_ref().and_then(|header| header.lookup(offset).ok());
            let Some(run) = run else {
                out.fill(0);
                return Ok(());
            };
            let length = out.len().min(usize::try_from(run.remaining).unwrap_or(usize::MAX));
            let (part, rest) = out.split_at_mut(length);
            match self.builds.get(&run.build) {
                Some(file) if !run.is_zero => file.read_exact_at(part, run.storage_offset)?,
                _ => part.fill(0),
            }
            out = rest;
            offset += length as u64;
        }
        Ok(())
    }
}

fn read_header(file: &File, size_bytes: u64) -> Result<Header, ControlError> {
    let bytes_max = METADATA_BYTES as u64 + size_bytes / BLOCK_BYTES * ENTRY_BYTES as u64;
    let length = file.metadata()?.len();
    if length > bytes_max {
        return Err(ControlError::invalid(format!("a header of {length} bytes")));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0)?;
    parse(&bytes).map_err(|error| ControlError::invalid(format!("header: {error}")))
}
