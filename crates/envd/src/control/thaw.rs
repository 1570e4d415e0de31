//! `POST /thaw`: the same VM goes on, after a snapshot or a pause that was given up.

use hyper::{Response, StatusCode};
use serde::Deserialize;

use super::{explain, timestamp};
use crate::agent::Agent;
use crate::body::{self, Body};
use crate::http_error::HttpError;
use crate::kernel;

#[derive(Deserialize)]
pub struct Thaw {
    /// RFC 3339.
    timestamp: String,
    /// As in `/init`.
    #[serde(rename = "unixUs")]
    unix_us: Option<u64>,
    /// As in `/prepare`.
    sequence: Option<u64>,
}

/// 204. Does not open a VM that never had an `/init`.
pub async fn thaw(agent: &Agent, thaw: Thaw) -> Result<Response<Body>, HttpError> {
    let time = timestamp(&thaw.timestamp, thaw.unix_us)?;
    let mut undone = agent.transition.lock().await;
    *undone = (*undone).max(thaw.sequence.unwrap_or(0));
    if !agent.args.dev {
        kernel::set_clock(time).map_err(explain("clock"))?;
    }
    if let Some(cgroup) = &agent.cgroup {
        cgroup.thaw().map_err(explain("thaw"))?;
    }
    if agent.identity().counter.is_some() || agent.args.open {
        agent.gate.open();
    }
    Ok(body::empty(StatusCode::NO_CONTENT))
}
