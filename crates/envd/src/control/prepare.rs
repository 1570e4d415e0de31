//! `POST /prepare`: a VM that can be snapshotted. Nobody is served, users' processes stand still, the disk is
//! written.

use std::fs::File;
use std::time::{Duration, Instant};

use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::explain;
use crate::agent::Agent;
use crate::body::{self, Body};
use crate::http_error::HttpError;

const FREEZE_LIMIT: Duration = Duration::from_millis(300);

#[derive(Deserialize)]
pub struct Prepare {
    /// Grows with every request to this port. The host may have given this one up and gone on before it was read.
    sequence: Option<u64>,
}

/// 200 `{frozen, ms}`. Not frozen: some process cannot be stopped now, or the kernel has no freezer; a snapshot is
/// still whole.
pub async fn prepare(agent: &Agent, prepare: Prepare) -> Result<Response<Body>, HttpError> {
    let start = Instant::now();
    let frozen = {
        let undone = agent.transition.lock().await;
        if prepare.sequence.is_some_and(|sequence| sequence <= *undone) {
            return Ok(body::json(StatusCode::OK, &json!({ "frozen": false, "ms": 0 })));
        }
        agent.gate.close();
        match &agent.cgroup {
            Some(cgroup) => cgroup.freeze(FREEZE_LIMIT).await.map_err(explain("freeze"))?,
            None => false,
        }
    };
    // Only the root file system: one that a frozen process serves would wait for that process. Outside the
    // transition, so that a host that takes the pause back does not wait for a slow disk.
    let root = agent.args.root.clone();
    let synced = tokio::task::spawn_blocking(move || Ok(rustix::fs::syncfs(File::open(root)?)?)).await;
    synced.unwrap_or_else(|error| Err(error.into())).map_err(explain("sync"))?;
    Ok(body::json(StatusCode::OK, &json!({ "frozen": frozen, "ms": start.elapsed().as_millis() as u64 })))
}
