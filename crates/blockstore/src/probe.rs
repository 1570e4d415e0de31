//! Asks a directory's file system whether a sparse file's extents can serve as a layer's map.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use crate::block_map::BLOCK_BYTES;
use crate::layer::extents;

const WRITES: u64 = 64;
const FILE_BLOCKS: u64 = 1 << 18;

/// Writes scattered blocks into a nameless sparse file and compares what SEEK_DATA and SEEK_HOLE say with what was
/// written, before and after a sync and after punching every fourth. The error is the reason to refuse the directory.
pub fn probe(directory: &Path) -> Result<(), String> {
    let file = nameless_file(directory).map_err(|error| format!("can't make a file: {error}"))?;
    file.set_len(FILE_BLOCKS * BLOCK_BYTES).map_err(|error| format!("can't make a sparse file: {error}"))?;
    let blocks: Vec<u64> = (0..WRITES).map(scattered).collect();
    for block in &blocks {
        let result = file.write_all_at(&[0xa5; BLOCK_BYTES as usize], block * BLOCK_BYTES);
        result.map_err(|error| format!("can't write: {error}"))?;
    }
    compare(&file, &blocks, "after writing")?;
    file.sync_data().map_err(|error| format!("can't sync: {error}"))?;
    compare(&file, &blocks, "after a sync")?;
    for block in blocks.iter().step_by(4) {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, mode, block * BLOCK_BYTES, BLOCK_BYTES)
            .map_err(|error| format!("can't punch holes: {error}"))?;
    }
    let left: Vec<u64> =
        blocks.iter().enumerate().filter(|(at, _)| at % 4 != 0).map(|(_, block)| *block).collect();
    compare(&file, &left, "after punching holes")
}

/// Ascending, with gaps from one block to thousands.
fn scattered(index: u64) -> u64 {
    index * (FILE_BLOCKS / WRITES) + (index * index * 37) % (FILE_BLOCKS / WRITES - 1)
}

fn compare(file: &File, blocks: &[u64], when: &str) -> Result<(), String> {
    let found = extents(file).map_err(|error| format!("SEEK_DATA: {error}"))?;
    let mut expected: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        let range = block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
        match expected.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => expected.push(range),
        }
    }
    if found == expected {
        return Ok(());
    }
    let wrong = expected.iter().find(|range| !found.contains(range)).map_or(0, |range| range.start);
    Err(format!(
        "SEEK_DATA {when} finds {} extents where {} were written, first difference at {wrong}: \
         this file system does not track 4 KiB blocks exactly",
        found.len(),
        expected.len()
    ))
}

fn nameless_file(directory: &Path) -> io::Result<File> {
    let open = |flags: OFlags, path: &Path| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(flags.bits() as i32);
        options.open(path)
    };
    match open(OFlags::TMPFILE, directory) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {
            let path = directory.join(format!(".thaw-probe-{}", std::process::id()));
            let file = open(OFlags::CREATE | OFlags::EXCL, &path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        result => result,
    }
}
