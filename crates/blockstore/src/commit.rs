//! The uncommitted layer has become part of a build: its header replaces layer and base.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use thaw_control::ControlError;

use crate::base::Base;
use crate::block_map::{BLOCK_BYTES, Content};
use crate::layer::Layer;
use crate::layers::Layers;
use crate::store::Store;

/// Refuses a header that does not hold the layer's blocks, so that a mistake elsewhere can't change the running disk.
pub fn commit(store: &Store, base: Base) -> Result<(), ControlError> {
    let turn = store.take_turn();
    let layers = store.layers();
    let Some(layer) = &layers.uncommitted else {
        return Err(ControlError::new("invalid_state", "commit: nothing was rotated"));
    };
    if store.aborting.load(Ordering::Relaxed) {
        return Err(ControlError::new("invalid_state", "commit: the layer's abort was begun"));
    }
    check(layer, &base)?;
    let layers = Layers { top: layers.top.clone(), uncommitted: None, base: Arc::new(base) };
    store.replace_layers(&turn, layers);
    Ok(())
}

fn check(layer: &Layer, base: &Base) -> Result<(), ControlError> {
    for (content, run) in layer.contents() {
        let expected = match content {
            Content::Below => continue,
            Content::Stored => true,
            Content::Zero => false,
        };
        let mut block = run.start;
        while block < run.end {
            let (held, end) = base.holds(block, run.end);
            if held != expected {
                let what = if held { "not zero" } else { "not stored" };
                let message = format!("commit: the header says {what} at {}", block * BLOCK_BYTES);
                return Err(ControlError::invalid(message));
            }
            block = end;
        }
    }
    Ok(())
}
