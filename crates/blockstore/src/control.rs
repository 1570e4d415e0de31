//! The operations on the control channel.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Deserialize;
use serde_json::{Value, json};
use thaw_control::{Channel, ControlError, Request};
use thaw_snapshot::parse_build_id;

use crate::abort::abort;
use crate::base::Base;
use crate::commit::commit;
use crate::confine::confine;
use crate::layer::Layer;
use crate::rotate::{rotate, top_sizes};
use crate::start::{Writable, check_size, start};
use crate::store::Store;

/// Indices of descriptors, as the request names them.
#[derive(Deserialize)]
struct LayerFiles {
    top: usize,
    zeros: usize,
}

#[derive(Deserialize)]
struct BaseFiles {
    header: Option<usize>,
    #[serde(default)]
    builds: HashMap<String, usize>,
}

#[derive(Deserialize)]
struct Start {
    size_bytes: u64,
    fuse: usize,
    #[serde(flatten)]
    top: LayerFiles,
    #[serde(flatten)]
    base: BaseFiles,
    /// The rotated layer that a crash left uncommitted.
    uncommitted: Option<LayerFiles>,
}

#[derive(Deserialize)]
struct Rotate {
    runs: usize,
    #[serde(flatten)]
    top: LayerFiles,
}

/// What the channel's requests act on: nothing before `start`.
pub struct Session {
    channel: Arc<Channel>,
    store: Option<Arc<Store>>,
}

impl Session {
    pub fn new(channel: Arc<Channel>) -> Self {
        Self { channel, store: None }
    }

    pub fn handle(&mut self, mut request: Request) -> Result<Value, ControlError> {
        if request.op == "start" {
            return self.start(&mut request);
        }
        let Some(store) = &self.store else {
            return Err(ControlError::new("invalid_state", "start comes first"));
        };
        match request.op.as_str() {
            "flush" => {
                store.flush()?;
                Ok(json!({}))
            }
            "rotate" => {
                let body: Rotate = request.body()?;
                let top = open_layer(&mut request, &body.top, store.size_bytes)?;
                let sizes = rotate(store, top, File::from(request.take_fd(body.runs)?))?;
                Ok(json!({"stored_bytes": sizes.stored_bytes, "zero_bytes": sizes.zero_bytes}))
            }
            "commit" => {
                let body: BaseFiles = request.body()?;
                let base = open_base(&mut request, &body, store.size_bytes)?;
                commit(store, base)?;
                Ok(json!({}))
            }
            "abort" => {
                abort(store)?;
                Ok(json!({}))
            }
            "stats" => Ok(stats(store)),
            other => Err(ControlError::invalid(format!("unknown operation {other:?}"))),
        }
    }

    fn start(&mut self, request: &mut Request) -> Result<Value, ControlError> {
        if self.store.is_some() {
            return Err(ControlError::new("invalid_state", "started already"));
        }
        let body: Start = request.body()?;
        check_size(body.size_bytes)?;
        let base = open_base(request, &body.base, body.size_bytes)?;
        let top = open_layer(request, &body.top, body.size_bytes)?;
        let uncommitted = match &body.uncommitted {
            Some(files) => Some(open_layer(request, files, body.size_bytes)?),
            None => None,
        };
        let fuse = request.take_fd(body.fuse)?;
        let writable = Writable { top, uncommitted };
        let store = start(body.size_bytes, fuse, writable, base, &self.channel)?;
        confine()?;
        self.store = Some(store);
        Ok(json!({}))
    }
}

fn open_layer(request: &mut Request, files: &LayerFiles, size_bytes: u64) -> Result<Layer, ControlError> {
    let (file, tombstones) = (request.take_fd(files.top)?, request.take_fd(files.zeros)?);
    Layer::open(File::from(file), File::from(tombstones), size_bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidInput => ControlError::invalid(error.to_string()),
        _ => error.into(),
    })
}

fn open_base(request: &mut Request, files: &BaseFiles, size_bytes: u64) -> Result<Base, ControlError> {
    let Some(header) = files.header else {
        return Ok(Base::default());
    };
    let header = File::from(request.take_fd(header)?);
    let mut builds = HashMap::new();
    for (name, index) in &files.builds {
        let id = parse_build_id(name).ok_or_else(|| ControlError::invalid(format!("build {name:?}")))?;
        builds.insert(id, File::from(request.take_fd(*index)?));
    }
    Base::open(&header, builds, size_bytes)
}

fn stats(store: &Store) -> Value {
    let layers = store.layers();
    let sizes = top_sizes(&layers);
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    json!({
        "reads": count(&store.counts.reads),
        "read_bytes": count(&store.counts.read_bytes),
        "writes": count(&store.counts.writes),
        "written_bytes": count(&store.counts.written_bytes),
        "clears": count(&store.counts.clears),
        "flushes": count(&store.counts.flushes),
        "errors": count(&store.counts.errors),
        "stored_bytes": sizes.stored_bytes,
        "zero_bytes": sizes.zero_bytes,
        "uncommitted": layers.uncommitted.is_some(),
    })
}
