//! Memory into a file: all of it, or what changed.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::guest_memory::{GuestMemory, PAGE_BYTES};
use crate::refusal::reason;

#[derive(Clone, Copy, Debug, Default, serde::Deserialize, PartialEq)]
pub enum Kind {
    #[default]
    Full,
    Diff,
}

/// Writes and syncs the file. One of exactly the memory's size is written in place, so that a Diff onto a copy of its
/// parent gives a whole image; any other starts from nothing. With `no_space` the disk is full half way. Errors are a
/// message.
pub fn dump(memory: &GuestMemory, path: &Path, kind: Kind, no_space: bool) -> Result<(), String> {
    let failed = |verb: &'static str| {
        move |error: io::Error| {
            format!("Cannot perform {verb} on the memory backing file: {}", reason(&error))
        }
    };
    let file = File::options().write(true).create(true).truncate(false).open(path).map_err(failed("open"))?;
    if file.metadata().map_err(failed("metadata"))?.len() != memory.size_bytes {
        file.set_len(0).map_err(failed("truncate"))?;
        file.set_len(memory.size_bytes).map_err(failed("set_length"))?;
    }
    let end = if no_space { memory.size_bytes / 2 } else { memory.size_bytes };
    let written = match kind {
        Kind::Full => memory.save(&file, 0, end),
        Kind::Diff => changed(memory).and_then(|pages| {
            pages
                .iter()
                .filter(|page| **page < end)
                .try_for_each(|page| memory.save(&file, *page, PAGE_BYTES))
        }),
    };
    let full = if no_space { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) };
    written.and(full).map_err(|error| format!("Cannot write memory file: {}", reason(&error)))?;
    file.sync_all().map_err(failed("sync_all"))
}

/// Without tracking, what is present may have changed.
fn changed(memory: &GuestMemory) -> io::Result<Vec<u64>> {
    match &memory.dirty {
        Some(dirty) => Ok(dirty.pages().collect()),
        None => memory.present(),
    }
}
