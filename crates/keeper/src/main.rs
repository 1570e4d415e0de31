//! `thaw-keeper RUN_DIR` is the parent of one sandbox's processes: its VMM, pager and block store. It does what
//! the host agent cannot do itself (namespaces, mounts, dropped privileges, passed descriptors, exit reasons)
//! and outlives it. When a keeper dies, its children die (parent-death signal) and its mounts vanish with its
//! mount namespace.
//!
//! It listens on `RUN_DIR/keeper.sock` for newline-delimited JSON; the operations are in `request.rs`.
//! `thaw-keeper tsc` prints the rate of this machine's time stamp counter.

mod answer;
mod child;
mod connection;
mod end;
mod exec;
mod forward;
mod guard;
mod jail;
mod keeper;
mod pending;
mod receive;
mod request;
mod ring;
mod role;
mod source;
mod start;
mod sys;
mod tsc;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(first), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: thaw-keeper RUN_DIR | thaw-keeper tsc");
        return ExitCode::from(2);
    };
    if first == "tsc" {
        println!("{{\"tsc_khz\":{}}}", tsc::measure_khz());
        return ExitCode::SUCCESS;
    }
    if first == guard::ARGUMENT {
        return guard::run();
    }
    match start::run(PathBuf::from(first)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("thaw-keeper: {error}");
            ExitCode::FAILURE
        }
    }
}
