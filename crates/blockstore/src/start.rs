//! Opens the layers and serves them on a mounted /dev/fuse.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::{Config, Session, SessionACL};
use serde_json::json;
use thaw_control::{Channel, ControlError};

use crate::base::Base;
use crate::block_map::BLOCK_BYTES;
use crate::disk::Disk;
use crate::layer::Layer;
use crate::layers::Layers;
use crate::store::Store;

/// Reads overlap; more threads than this only cost memory.
const THREADS: usize = 4;

/// The writable layers at the start: the top and, after a crash between rotate and commit, what was rotated.
pub struct Writable {
    pub top: Layer,
    pub uncommitted: Option<Layer>,
}

/// Returns once the kernel's first request is answered; the file is usable then. When the file system ends,
/// `{"event":"gone"}` is sent.
pub fn start(
    size_bytes: u64,
    fuse: OwnedFd,
    writable: Writable,
    base: Base,
    channel: &Arc<Channel>,
) -> Result<Arc<Store>, ControlError> {
    let layers = Layers {
        top: Arc::new(writable.top),
        uncommitted: writable.uncommitted.map(Arc::new),
        base: Arc::new(base),
    };
    let store = Arc::new(Store::new(size_bytes, layers));
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    let session = Session::from_fd(Disk::new(store.clone()), fuse, SessionACL::All, config)?;
    let channel = channel.clone();
    std::thread::Builder::new().name("session".into()).spawn(move || {
        if let Err(error) = session.run() {
            eprintln!("thaw-blockstore: the FUSE session ended: {error}");
        }
        // The other end may be closed already.
        let _ = channel.send(&json!({"event": "gone"}), &[]);
    })?;
    Ok(store)
}

/// A disk's size must be a whole number of blocks that every reader of headers can hold.
pub fn check_size(size_bytes: u64) -> Result<(), ControlError> {
    let valid =
        size_bytes > 0 && size_bytes <= thaw_snapshot::MAX_OFFSET && size_bytes.is_multiple_of(BLOCK_BYTES);
    if valid { Ok(()) } else { Err(ControlError::invalid(format!("a disk of {size_bytes} bytes"))) }
}
