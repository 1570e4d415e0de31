//! `SendSignal`: to the process itself, not to what it started.

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};

use super::output;
use super::selector::Selector;
use crate::agent::Agent;
use crate::rpc::{Code, RpcError, or_default};

#[derive(Deserialize)]
pub struct SendSignal {
    #[serde(default, deserialize_with = "or_default")]
    process: Selector,
    #[serde(default)]
    signal: Value,
}

pub fn send_signal(agent: &Agent, message: SendSignal) -> Result<Value, RpcError> {
    let process = message.process.running(agent)?;
    let signal = match (message.signal.as_str(), message.signal.as_u64()) {
        (Some("SIGNAL_SIGKILL"), _) | (_, Some(9)) => Signal::KILL,
        (Some("SIGNAL_SIGTERM"), _) | (_, Some(15)) => Signal::TERM,
        _ => return Err(Code::Unimplemented.error("the signal is SIGNAL_SIGKILL or SIGNAL_SIGTERM")),
    };
    output::signal(&process, signal)
        .map_err(|error| Code::Internal.error(format!("the signal failed: {error}")))?;
    Ok(json!({}))
}
