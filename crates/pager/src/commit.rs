//! `commit` and `abort`: what becomes of the last dump.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::Deserialize;
use serde_json::{Value, json};
use thaw_control::{ControlError, Request};

use crate::session::{Session, lock};
use crate::source::Source;
use crate::start::take_builds;

#[derive(Deserialize)]
struct Commit {
    header: usize,
    #[serde(default)]
    builds: BTreeMap<String, usize>,
}

/// The dump is part of a durable build: pages come from that build's header from now on, and the next dump is
/// against it.
pub fn commit(session: &Session, mut request: Request) -> Result<Value, ControlError> {
    let body: Commit = request.body()?;
    if !session.dumped.load(Ordering::Acquire) {
        return Err(ControlError::new("invalid_state", "no dump waits for a commit"));
    }
    let header = request.take_fd(body.header)?;
    let builds = take_builds(&mut request, &body.builds)?;
    let source = Source::open(header, builds, session.memory_bytes, &mut lock(&session.bytes_by_build))?;
    session.set_source(source);
    session.state.uncommitted().clear();
    session.assumed_written().clear();
    session.dumped.store(false, Ordering::Release);
    *lock(&session.pre_dumped) = None;
    Ok(json!({}))
}

/// The dump came to nothing. Its pages stay uncommitted, so there is nothing to take back.
pub fn abort(session: &Session) -> Result<Value, ControlError> {
    session.dumped.store(false, Ordering::Release);
    *lock(&session.pre_dumped) = None;
    Ok(json!({}))
}
