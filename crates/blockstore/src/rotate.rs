//! Freezes the top as a layer of its own and starts a new one.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::sync::Arc;

use thaw_control::ControlError;

use crate::block_map::{BLOCK_BYTES, Content};
use crate::layer::Layer;
use crate::layers::Layers;
use crate::store::Store;

/// Bytes of a layer's blocks by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub stored_bytes: u64,
    pub zero_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stored = 1,
    ZeroFill = 2,
}

/// The top becomes the uncommitted layer, `top` the new top, and the layer's runs are written to `out`. Takes time by the
/// number of blocks changed, whatever their bytes; nothing is synced.
pub fn rotate(store: &Store, top: Layer, out: File) -> Result<Sizes, ControlError> {
    if !top.is_empty() {
        return Err(ControlError::invalid("rotate: the new top is not empty"));
    }
    let turn = store.take_turn();
    let layers = store.layers();
    if layers.uncommitted.is_some() {
        return Err(ControlError::new("invalid_state", "rotate: a layer waits for its commit or abort"));
    }
    let sizes = write_runs(&layers, out)?;
    let uncommitted = Some(layers.top.clone());
    store.replace_layers(&turn, Layers { top: Arc::new(top), uncommitted, base: layers.base.clone() });
    Ok(sizes)
}

/// Bytes of `layers.top` by kind: what a rotate would report now.
pub fn top_sizes(layers: &Layers) -> Sizes {
    let mut sizes = Sizes::default();
    for (kind, run) in runs(layers) {
        sizes.add(kind, &run);
    }
    sizes
}

/// Records of 24 bytes, little endian, ascending: u64 offset, u64 length, u64 kind (1 stored, 2 zero fill).
fn write_runs(layers: &Layers, out: File) -> io::Result<Sizes> {
    let mut sizes = Sizes::default();
    let mut out = BufWriter::new(out);
    let mut write = |kind: Kind, run: &Range<u64>| {
        sizes.add(kind, run);
        for value in [run.start * BLOCK_BYTES, (run.end - run.start) * BLOCK_BYTES, kind as u64] {
            out.write_all(&value.to_le_bytes())?;
        }
        Ok::<_, io::Error>(())
    };
    let mut pending: Option<(Kind, Range<u64>)> = None;
    for (kind, run) in runs(layers) {
        match &mut pending {
            Some((last, range)) if *last == kind && range.end == run.start => range.end = run.end,
            _ => {
                if let Some((kind, range)) = pending.replace((kind, run)) {
                    write(kind, &range)?;
                }
            }
        }
    }
    if let Some((kind, range)) = pending {
        write(kind, &range)?;
    }
    out.flush()?;
    Ok(sizes)
}

/// What the top changes; zero blocks over zero fill change nothing.
fn runs(layers: &Layers) -> impl Iterator<Item = (Kind, Range<u64>)> {
    layers.top.contents().flat_map(|(content, run)| match content {
        Content::Below => Vec::new(),
        Content::Stored => vec![(Kind::Stored, run)],
        Content::Zero => {
            let mut held_runs = Vec::new();
            let mut block = run.start;
            while block < run.end {
                let (held, end) = layers.base.holds(block, run.end);
                if held {
                    held_runs.push((Kind::ZeroFill, block..end));
                }
                block = end;
            }
            held_runs
        }
    })
}

impl Sizes {
    fn add(&mut self, kind: Kind, run: &Range<u64>) {
        let bytes = (run.end - run.start) * BLOCK_BYTES;
        match kind {
            Kind::Stored => self.stored_bytes += bytes,
            Kind::ZeroFill => self.zero_bytes += bytes,
        }
    }
}
