//! /mmds. The configuration is part of a snapshot, the data is not.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::network::Network;
use crate::refusal::{Outcome, refuse};

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub enum MmdsVersion {
    #[default]
    V1,
    V2,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MmdsConfig {
    #[serde(default)]
    pub version: MmdsVersion,
    pub network_interfaces: Vec<String>,
    pub ipv4_address: Option<Ipv4Addr>,
    #[serde(default)]
    pub imds_compat: bool,
}

impl MmdsConfig {
    pub fn check(&self, interfaces: &[Network]) -> Outcome {
        if self.network_interfaces.is_empty() {
            return refuse(
                "MMDS config error: The list of network interface IDs that allow forwarding MMDS requests is empty.",
            );
        }
        let known = |id: &String| interfaces.iter().any(|interface| interface.iface_id == *id);
        if !self.network_interfaces.iter().all(known) {
            return refuse(
                "MMDS config error: The list of network interface IDs provided contains at least one ID that does not \
                 correspond to any existing network interface.",
            );
        }
        if self.ipv4_address.is_some_and(|address| !address.is_link_local()) {
            return refuse("MMDS config error: The MMDS IPv4 address is not link local.");
        }
        Ok(())
    }
}

/// JSON merge patch (RFC 7396).
pub fn merge(target: &mut Value, patch: Value) {
    let Value::Object(fields) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let object = target.as_object_mut().expect("made one above");
    for (name, value) in fields {
        match value {
            Value::Null => drop(object.remove(&name)),
            value => merge(object.entry(name).or_insert(Value::Null), value),
        }
    }
}
