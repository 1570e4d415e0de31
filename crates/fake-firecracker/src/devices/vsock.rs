//! /vsock. Nobody listens in the guest: connections end without a word.

use std::os::unix::net::UnixListener;

use serde::{Deserialize, Serialize};

use crate::refusal::reason;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock_id: Option<String>,
    pub guest_cid: u32,
    pub uds_path: String,
}

/// Of snapshot/load.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockOverride {
    pub uds_path: String,
}

impl Vsock {
    /// The socket stays behind when the process ends. Errors are a message.
    pub fn bind(&self) -> Result<UnixListener, String> {
        let bound = UnixListener::bind(&self.uds_path).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        bound.map_err(|error| format!("Error binding to the host-side Unix socket: {}", reason(&error)))
    }
}
