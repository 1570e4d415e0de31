//! `Update`: the size of a terminal.

use rustix::termios::{Winsize, tcsetwinsize};
use serde::Deserialize;
use serde_json::{Value, json};

use super::selector::Selector;
use super::terminal::Pty;
use crate::agent::Agent;
use crate::rpc::{Code, RpcError, or_default};

#[derive(Deserialize)]
pub struct Update {
    #[serde(default, deserialize_with = "or_default")]
    process: Selector,
    pty: Option<Pty>,
}

/// The programs in the terminal are told by SIGWINCH.
pub fn update(agent: &Agent, message: Update) -> Result<Value, RpcError> {
    let process = message.process.running(agent)?;
    let Some(size) = message.pty.and_then(|pty| pty.size) else { return Ok(json!({})) };
    let terminal = process.terminal.lock().unwrap();
    let Some(terminal) = &*terminal else {
        return Err(Code::Internal.error("the process has no terminal"));
    };
    tcsetwinsize(terminal, Winsize::from(size))
        .map_err(|error| Code::Internal.error(format!("the size cannot be set: {error}")))?;
    Ok(json!({}))
}
