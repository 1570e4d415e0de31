//! Watching a directory: as a stream, or kept until asked. One inotify instance per watcher; instances live in the
//! agent, so they go with the VM through every pause.

mod event;
mod kept;
mod nodes;
mod stream;
mod tree;

pub use kept::{Watchers, create, events, remove};
pub use stream::stream;

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use serde::Deserialize;

use super::failure::lookup_failure;
use super::place::Place;
use crate::rpc::{Code, RpcError, or_default};
use tree::Tree;

/// The request of `WatchDir` and `CreateWatcher`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    #[serde(default, deserialize_with = "or_default")]
    path: String,
    #[serde(default, deserialize_with = "or_default")]
    recursive: bool,
    #[serde(default, alias = "include_entry", deserialize_with = "or_default")]
    include_entry: bool,
    #[serde(default, alias = "allow_network_mounts", deserialize_with = "or_default")]
    allow_network_mounts: bool,
}

const LOST: &str = "more happened than could be kept: some events are lost";

fn failed(error: io::Error) -> RpcError {
    Code::Internal.error(format!("the watcher failed: {error}"))
}

/// Everything that happens from here on is told. Blocks.
fn open(place: &Place, watch: &Watch) -> Result<Tree, RpcError> {
    let path = place.resolve(&watch.path)?;
    let found = fs::metadata(&path).map_err(|error| lookup_failure(&path, &error))?;
    let refuse = |text: &str| Err(Code::InvalidArgument.error(format!("path '{}' {text}", path.display())));
    if !found.is_dir() {
        return refuse("is not a directory");
    }
    if !watch.allow_network_mounts && is_network_mount(&path).map_err(|e| lookup_failure(&path, &e))? {
        return refuse("is on a network file system, which tells only what this machine does");
    }
    Tree::open(&path, watch).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NOSPC) => Code::ResourceExhausted.error("the limit of watched directories is reached"),
        Some(Errno::MFILE | Errno::NFILE) => {
            Code::ResourceExhausted.error("the limit of watchers is reached")
        }
        _ => lookup_failure(&path, &error),
    })
}

const NFS: u64 = 0x6969;
const SMB: u64 = 0x517b;
const CIFS: u64 = 0xff53_4d42;
const SMB2: u64 = 0xfe53_4d42;
const FUSE: u64 = 0x6573_5546;

fn is_network_mount(path: &Path) -> io::Result<bool> {
    let kind = rustix::fs::statfs(path)?.f_type as u64 & 0xffff_ffff;
    Ok(matches!(kind, NFS | SMB | CIFS | SMB2 | FUSE))
}
