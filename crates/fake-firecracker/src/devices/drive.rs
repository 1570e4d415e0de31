//! /drives.

use std::fs::File;
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

use super::RateLimiter;
use crate::refusal::reason;

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub enum CacheType {
    #[default]
    Unsafe,
    Writeback,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub enum IoEngine {
    #[default]
    Sync,
    Async,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    pub drive_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partuuid: Option<String>,
    pub is_root_device: bool,
    #[serde(default)]
    pub cache_type: CacheType,
    #[serde(default)]
    pub is_read_only: Option<bool>,
    pub path_on_host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
    #[serde(default)]
    pub io_engine: Option<IoEngine>,
    /// Of a vhost-user server, instead of a file.
    pub socket: Option<String>,
}

/// The body of PATCH.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveUpdate {
    pub drive_id: String,
    pub path_on_host: Option<String>,
    pub rate_limiter: Option<RateLimiter>,
}

impl Drive {
    pub fn is_read_only(&self) -> bool {
        self.is_read_only.unwrap_or(false)
    }

    /// The file behind it; `None` for vhost-user, whose server is only asked for. Errors are a message.
    pub fn open(&self) -> Result<Option<File>, String> {
        match (&self.path_on_host, &self.socket) {
            (Some(path), None) => {
                let opened = File::options().read(true).write(!self.is_read_only()).open(path);
                opened.map(Some).map_err(|error| {
                    let error = reason(&error);
                    format!("Virtio backend error: Error manipulating the backing file: {error} {path}")
                })
            }
            (None, Some(path)) => UnixStream::connect(path).map(|_| None).map_err(|error| {
                format!(
                    "Vhost user backend error: Vhost-user error: Failed to connect to UDS Unix stream: {}",
                    reason(&error)
                )
            }),
            _ => Err("Running method expected different backend.".into()),
        }
    }
}
