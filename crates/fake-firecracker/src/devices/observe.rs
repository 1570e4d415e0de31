//! What watches a VM: /logger, /metrics and /serial. None of it is part of a snapshot.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::RateLimiter;
use crate::refusal::{Outcome, reason, refuse};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logger {
    log_path: Option<PathBuf>,
    #[serde(rename = "level")]
    _level: Option<String>,
    #[serde(rename = "show_level")]
    _show_level: Option<bool>,
    #[serde(rename = "show_log_origin")]
    _show_log_origin: Option<bool>,
    #[serde(rename = "module")]
    _module: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    pub metrics_path: PathBuf,
    #[serde(rename = "emit_id")]
    _emit_id: Option<bool>,
    #[serde(rename = "properties")]
    _properties: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialConfig {
    pub serial_out_path: Option<PathBuf>,
    #[serde(rename = "rate_limiter")]
    _rate_limiter: Option<RateLimiter>,
}

impl Logger {
    pub fn check(&self) -> Outcome {
        match self.log_path.as_deref().map(open) {
            Some(Err(error)) => {
                refuse(format!("Logger error: Failed to open target file: {}", reason(&error)))
            }
            _ => Ok(()),
        }
    }
}

/// A file or a FIFO, which is not waited for.
pub fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).append(true).create(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Where the guest's console goes.
pub enum Serial {
    Stdout,
    File(File),
}

impl Serial {
    /// Text that can't be written is dropped.
    pub fn print(&mut self, text: &str) {
        let _ = match self {
            Serial::Stdout => io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()),
            Serial::File(file) => file.write_all(text.as_bytes()),
        };
    }
}
