//! What a VM is made of, in the words of the API's bodies. A body with a field that nobody knows is refused.

pub mod balloon;
pub mod boot_source;
pub mod drive;
pub mod hotplug;
pub mod machine;
pub mod mmds;
pub mod network;
pub mod observe;
pub mod vsock;

use serde::{Deserialize, Serialize};

use balloon::Balloon;
use boot_source::BootSource;
use drive::Drive;
use hotplug::{MemoryHotplug, Pmem};
use machine::Machine;
use mmds::MmdsConfig;
use network::Network;
use vsock::Vsock;

/// GET /vm/config; a snapshot holds the same.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    pub machine_config: Machine,
    pub boot_source: BootSource,
    pub drives: Vec<Drive>,
    pub network_interfaces: Vec<Network>,
    pub pmem: Vec<Pmem>,
    pub balloon: Option<Balloon>,
    pub cpu_config: Option<serde_json::Value>,
    pub entropy: Option<Entropy>,
    pub memory_hotplug: Option<MemoryHotplug>,
    pub mmds_config: Option<MmdsConfig>,
    pub vsock: Option<Vsock>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entropy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

/// Accepted and without effect, as all limits are.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimiter {
    #[serde(skip_serializing_if = "Option::is_none")]
    bandwidth: Option<TokenBucket>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ops: Option<TokenBucket>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBucket {
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    one_time_burst: Option<u64>,
    /// Milliseconds.
    refill_time: u64,
}
