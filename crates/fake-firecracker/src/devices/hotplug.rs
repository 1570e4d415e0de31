//! /hotplug/memory and /pmem: checked and remembered, without effect on the guest.

use std::fs::File;

use serde::{Deserialize, Serialize};

use super::RateLimiter;
use crate::refusal::{Outcome, reason, refuse};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryHotplug {
    pub total_size_mib: u64,
    #[serde(default = "slot_default")]
    pub slot_size_mib: u64,
    #[serde(default = "block_default")]
    pub block_size_mib: u64,
}

/// The body of PATCH.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryHotplugUpdate {
    pub requested_size_mib: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pmem {
    pub id: String,
    pub path_on_host: String,
    #[serde(default)]
    pub root_device: bool,
    #[serde(default)]
    pub read_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

fn slot_default() -> u64 {
    128
}

fn block_default() -> u64 {
    2
}

impl MemoryHotplug {
    pub fn check(&self) -> Outcome {
        let why = if self.block_size_mib < 2 {
            "Block size must not be lower than 2 MiB"
        } else if !self.block_size_mib.is_power_of_two() {
            "Block size must be a power of 2"
        } else if self.slot_size_mib < 128 {
            "Slot size must not be lower than 128 MiB"
        } else if !self.slot_size_mib.is_multiple_of(self.block_size_mib) {
            "Slot size must be a multiple of block size"
        } else if self.total_size_mib < self.slot_size_mib {
            "Total size must not be lower than slot size"
        } else if !self.total_size_mib.is_multiple_of(self.slot_size_mib) {
            "Total size must be a multiple of slot size"
        } else {
            return Ok(());
        };
        refuse(format!("Memory hotplug config error: {why}"))
    }
}

impl Pmem {
    pub fn check(&self) -> Outcome {
        match File::options().read(true).write(!self.read_only).open(&self.path_on_host) {
            Ok(_) => Ok(()),
            Err(error) => {
                refuse(format!("Pmem device error: Error with the backing file: {}", reason(&error)))
            }
        }
    }
}
