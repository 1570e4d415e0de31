//! The block store: serves one sandbox's disk as a FUSE file over immutable builds and one sparse top file.
//!
//! `thaw-blockstore` is driven over the control channel it inherits as descriptor 3 and leaves when that closes.
//! `thaw-blockstore probe DIR` prints `{"ok":true}`, or `{"ok":false,"reason":…}` and exits 1, if DIR can't hold layers.

mod abort;
mod base;
mod block_map;
mod commit;
mod confine;
mod control;
mod disk;
mod layer;
mod layers;
mod probe;
mod rotate;
mod start;
mod store;
mod tombstones;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => serve(),
        ["probe", directory] => probe(Path::new(directory)),
        _ => {
            eprintln!("usage: thaw-blockstore | thaw-blockstore probe DIR");
            ExitCode::from(2)
        }
    }
}

fn serve() -> ExitCode {
    let channel = Arc::new(thaw_control::child_channel());
    let mut session = control::Session::new(channel.clone());
    match thaw_control::serve(&channel, |request| session.handle(request)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("thaw-blockstore: control channel: {error}");
            ExitCode::FAILURE
        }
    }
}

fn probe(directory: &Path) -> ExitCode {
    match probe::probe(directory) {
        Ok(()) => {
            println!("{}", json!({"ok": true}));
            ExitCode::SUCCESS
        }
        Err(reason) => {
            println!("{}", json!({"ok": false, "reason": reason}));
            ExitCode::FAILURE
        }
    }
}
