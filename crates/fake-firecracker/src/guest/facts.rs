//! What the guest's agent and file systems know, kept in guest memory as a length and JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::FACTS;
use crate::guest_memory::GuestMemory;

#[derive(Default, Deserialize, Serialize)]
pub struct Facts {
    pub identity: Option<Identity>,
    /// Port 49983 is served, and commands go on.
    pub open: bool,
    /// The number of the last request that undid a `/prepare`.
    pub undone: u64,
    pub clock_offset_ms: i64,
    /// Files below /dev/shm.
    pub shm: BTreeMap<String, String>,
    /// Files of the root drive that `sync` has not written yet.
    pub unsynced: BTreeMap<String, String>,
}

/// What `/init` gave.
#[derive(Clone, Deserialize, Serialize)]
pub struct Identity {
    pub counter: u64,
    pub token: Option<String>,
    pub env: BTreeMap<String, String>,
    pub default_user: String,
    pub default_workdir: String,
    pub hostname: Option<String>,
    pub machine_id: Option<String>,
}

const LENGTH_BYTES: u64 = 8;

impl Facts {
    /// `None`: this memory holds none.
    pub fn load(memory: &GuestMemory) -> Option<Facts> {
        let mut length = [0; LENGTH_BYTES as usize];
        memory.read(FACTS.start, &mut length);
        let length = u64::from_le_bytes(length);
        if length > FACTS.end - FACTS.start - LENGTH_BYTES {
            return None;
        }
        let mut json = vec![0; length as usize];
        memory.read(FACTS.start + LENGTH_BYTES, &mut json);
        serde_json::from_slice(&json).ok()
    }

    /// `None`: they take more than there is room.
    pub fn store(&self, memory: &GuestMemory) -> Option<()> {
        let json = serde_json::to_vec(self).expect("facts serialise");
        let length = json.len() as u64;
        if length > FACTS.end - FACTS.start - LENGTH_BYTES {
            return None;
        }
        memory.write(FACTS.start, &length.to_le_bytes());
        memory.write(FACTS.start + LENGTH_BYTES, &json);
        Some(())
    }
}
