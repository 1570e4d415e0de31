//! Serves one VM's missing memory through userfaultfd and finds its dirty pages.
//!
//! The keeper starts it and asks it, over the control channel at descriptor 3: `start`, `pagemap`, `workset`,
//! `pre_dump`, `dump`, `collect`, `commit`, `abort`, `stats`. It tells the keeper `handshake` (with spares of the userfaultfd and of the
//! VMM's socket), `failed` and `gone`.
//!
//! ```text
//!            start            handshake              VMM ends
//!   idle ─────────► listening ─────────► serving ──────────────► gone
//!                    │    ▲               [pre_dump] ─► dump* ─► commit | abort
//!                    └────┘ bad peer: failed
//! ```
//!
//! In the place of a pager that died, `start` takes those spares and the state file and serves at once.
//!
//! `thaw-pager probe DEVICE` tells what this kernel can do (`probe.rs`).

mod ahead;
mod collect;
mod commit;
mod cpu;
mod diff;
mod dump;
mod handshake;
mod install;
mod latency;
mod memory;
mod mmap;
mod page;
mod page_set;
mod pagemap;
mod patience;
mod pre_dump;
mod probe;
mod process;
mod regions;
mod rounds;
mod seccomp;
mod serve;
mod session;
mod source;
mod start;
mod state;
mod stats;
mod touched;
mod uffd;
mod vmm;
mod workset;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};
use thaw_control::{ControlError, Request, child_channel};

use crate::pagemap::Pagemap;
use crate::session::Session;

fn main() -> ExitCode {
    end_on_panic();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, device] = arguments.as_slice()
        && verb == "probe"
    {
        println!("{}", probe::probe(device));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = seccomp::confine() {
        eprintln!("thaw-pager: system calls can't be limited: {error}");
        return ExitCode::FAILURE;
    }
    let channel = Arc::new(child_channel());
    let mut session: Option<Arc<Session>> = None;
    let served = thaw_control::serve(&channel, |request| {
        let Some(started) = &session else {
            if request.op != "start" {
                return Err(ControlError::new("invalid_state", "the pager is not started"));
            }
            let (started, result) = start::start(&channel, request)?;
            session = Some(started);
            return Ok(result);
        };
        answer(started, request)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("thaw-pager: control channel: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(session: &Session, request: Request) -> Result<Value, ControlError> {
    match request.op.as_str() {
        "pagemap" => take_pagemap(session, request),
        "pre_dump" => pre_dump::pre_dump(session, request),
        "dump" => dump::dump(session, request),
        "collect" => collect::collect(session, request),
        "commit" => commit::commit(session, request),
        "abort" => commit::abort(session),
        "workset" => take_workset(session, request),
        "stats" => stats::stats(session),
        "start" => Err(ControlError::new("invalid_state", "the pager is started already")),
        other => Err(ControlError::invalid(format!("unknown request {other:?}"))),
    }
}

/// The descriptor that the field `name` of a request stands for.
fn take_named(request: &mut Request, name: &str) -> Result<OwnedFd, ControlError> {
    let index = request.json.get(name).and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
    request.take_fd(index.ok_or_else(|| ControlError::invalid(format!("{name}: which descriptor?")))?)
}

/// Ends the recording. With a file, writes the pages needed until then, those installed ahead included.
fn take_workset(session: &Session, mut request: Request) -> Result<Value, ControlError> {
    if let Err(error) = session.end_recording() {
        eprintln!("thaw-pager: the working set is not recorded: {error}");
    }
    match request.json.get("file") {
        None => Ok(json!({})),
        Some(_) => Ok(json!({"pages": session.recorder.write(take_named(&mut request, "file")?)?})),
    }
}

/// The VMM's /proc/PID/pagemap, opened by the keeper, and, if pages come in ahead, its clear_refs. To be given after the
/// handshake and before the first dump.
fn take_pagemap(session: &Session, mut request: Request) -> Result<Value, ControlError> {
    let vmm = session.running_vmm()?;
    if request.json.get("clear_refs").is_some() {
        vmm.set_clear_refs(File::from(take_named(&mut request, "clear_refs")?));
    }
    vmm.set_pagemap(Pagemap::adopt(File::from(take_named(&mut request, "pagemap")?), session.peer_uid)?);
    session.mark_untouched();
    Ok(json!({}))
}

/// A pager without its fault thread would let the VM hang unnoticed: better gone, and reported by the keeper.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(101);
    }));
}
