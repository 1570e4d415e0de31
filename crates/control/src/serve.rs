//! Answers requests one after another, in the thread that calls it.

use std::io;
use std::os::fd::OwnedFd;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Channel;
use crate::channel::HOLD;

/// An error as the other end sees it. `kind` is one of the catalogue's: `invalid_request`, `invalid_state`,
/// `internal`, `exhausted`, `timeout`, …
#[derive(Debug)]
pub struct ControlError {
    pub kind: &'static str,
    pub message: String,
}

impl ControlError {
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new("invalid_request", message)
    }
}

impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        let kind = if error.raw_os_error() == Some(28) { "exhausted" } else { "internal" };
        Self::new(kind, error.to_string())
    }
}

/// One request with its descriptors; each can be taken once.
pub struct Request {
    pub op: String,
    pub json: Value,
    fds: Vec<Option<OwnedFd>>,
}

impl Request {
    /// The request's fields as a type of the caller's.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, ControlError> {
        serde_json::from_value(self.json.clone())
            .map_err(|error| ControlError::invalid(format!("{}: {error}", self.op)))
    }

    /// The descriptor at `index`, as a field of the request named it.
    pub fn take_fd(&mut self, index: usize) -> Result<OwnedFd, ControlError> {
        self.fds
            .get_mut(index)
            .and_then(Option::take)
            .ok_or_else(|| ControlError::invalid(format!("{}: no descriptor {index}", self.op)))
    }
}

/// Serves until the other end closes. A broken request is answered, a broken channel ends the loop.
pub fn serve(
    channel: &Channel,
    mut handle: impl FnMut(Request) -> Result<Value, ControlError>,
) -> io::Result<()> {
    let mut held: Vec<OwnedFd> = Vec::new();
    while let Some(message) = channel.recv()? {
        let id = message.json.get("id").cloned().unwrap_or(Value::Null);
        let op = message.json.get("op").and_then(Value::as_str).unwrap_or_default().to_owned();
        if op == HOLD {
            held.extend(message.fds);
            continue;
        }
        let fds = held.drain(..).chain(message.fds).map(Some).collect();
        let answer = match handle(Request { op, json: message.json, fds }) {
            Ok(result) => json!({"id": id, "ok": true, "result": result}),
            Err(error) => {
                json!({"id": id, "ok": false, "error": {"kind": error.kind, "message": error.message}})
            }
        };
        channel.send(&answer, &[])?;
    }
    Ok(())
}
