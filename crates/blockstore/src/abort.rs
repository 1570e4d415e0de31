//! No build came of a rotate: what was written since goes back into the old top, which is the top again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use thaw_control::ControlError;

use crate::block_map::{BLOCK_BYTES, Content};
use crate::layers::Layers;
use crate::store::{Store, Turn};

const PIECE_BLOCKS: u64 = 256;
const READERS_WAIT_MAX: Duration = Duration::from_secs(10);

/// Does nothing if nothing was rotated. May be repeated after an error; until it succeeds the disk reads as before. On
/// success the new top's files are empty on disk: whoever finds both after a crash sees the merged content.
pub fn abort(store: &Store) -> Result<(), ControlError> {
    let turn = store.take_turn();
    let layers = store.layers();
    let Some(old) = &layers.uncommitted else {
        drop(turn);
        return Ok(store.flush()?);
    };
    store.aborting.store(true, Ordering::Relaxed);
    let merged = Layers { top: old.clone(), uncommitted: None, base: layers.base.clone() };
    merge(&turn, &layers, &merged)?;
    merged.top.sync_in_turn(&turn)?;
    store.replace_layers(&turn, merged);
    store.aborting.store(false, Ordering::Relaxed);
    wait_for_readers(&layers)?;
    layers.top.empty()?;
    Ok(())
}

fn merge(turn: &Turn, from: &Layers, into: &Layers) -> io::Result<()> {
    let mut buffer = vec![0; (PIECE_BLOCKS * BLOCK_BYTES) as usize];
    for (content, run) in from.top.contents() {
        match content {
            Content::Below => {}
            Content::Zero => into.clear(turn, run)?,
            Content::Stored => {
                let mut block = run.start;
                while block < run.end {
                    let end = run.end.min(block + PIECE_BLOCKS);
                    let piece = &mut buffer[..((end - block) * BLOCK_BYTES) as usize];
                    from.top.read(piece, block * BLOCK_BYTES)?;
                    into.top.store(turn, block, piece)?;
                    block = end;
                }
            }
        }
    }
    Ok(())
}

/// Reads that began on the old stack may still need its top.
fn wait_for_readers(layers: &Arc<Layers>) -> Result<(), ControlError> {
    let start = Instant::now();
    while Arc::strong_count(layers) > 1 {
        if start.elapsed() > READERS_WAIT_MAX {
            return Err(ControlError::new("timeout", "abort: a read of the old top does not end"));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}
