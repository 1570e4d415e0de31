//! `POST /rehearse`: a VM that waits to be somebody practises. The host, and nobody else, may start programs of the image
//! while the gate is closed and users' processes stand still, and an identity of nobody is written: what a first command
//! and its `/init` need is then at hand.

use std::time::Duration;

use hyper::{Response, StatusCode};
use serde::Deserialize;

use super::explain;
use super::init::{Init, Told, identity, take_on};
use crate::agent::Agent;
use crate::body::{self, Body};
use crate::cgroup::Cgroup;
use crate::http_error::HttpError;

/// Fewer bytes could be guessed.
const TOKEN_BYTES_MIN: usize = 32;

/// Of a cgroup that has no process.
const FREEZE_LIMIT: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
pub struct Rehearse {
    /// What the host will call with, until the next `/init`, `/prepare` or `/thaw`.
    token: String,
    /// Of nobody: all of it is gone with the next `/init`.
    init: Init,
}

/// 204, 400 for an identity that makes no sense, or 409 for a VM that is somebody and serves its users.
pub async fn rehearse(
    agent: &Agent,
    Rehearse { token, init }: Rehearse,
) -> Result<Response<Body>, HttpError> {
    let _transition = agent.transition.lock().await;
    if token.len() < TOKEN_BYTES_MIN {
        return Err(HttpError::bad_request("the token is too short"));
    }
    if agent.gate.is_open() {
        return Err(HttpError::new(StatusCode::CONFLICT, "the sandbox is in use"));
    }
    take_on(agent, &init, &Told::of(&init, &agent.identity())?)?;
    agent.rehearse_identity(&identity(init));
    if let Some(cgroup) = agent.rehearsal_cgroup.get_or_init(|| beside(agent.cgroup.as_ref()?)) {
        cgroup.freeze(FREEZE_LIMIT).await.and_then(|_| cgroup.thaw()).map_err(explain("a freeze"))?;
    }
    agent.gate.rehearse(token);
    Ok(body::empty(StatusCode::NO_CONTENT))
}

fn beside(cgroup: &Cgroup) -> Option<Cgroup> {
    cgroup.rehearsal().inspect_err(|error| eprintln!("thaw-envd: rehearsals are in no cgroup: {error}")).ok()
}
