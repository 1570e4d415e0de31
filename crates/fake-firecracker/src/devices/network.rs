//! /network-interfaces.

use serde::{Deserialize, Serialize};

use super::RateLimiter;
use crate::refusal::{Outcome, refuse};
use crate::tap::Tap;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub iface_id: String,
    pub host_dev_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_rate_limiter: Option<RateLimiter>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// The body of PATCH.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkUpdate {
    pub iface_id: String,
    pub rx_rate_limiter: Option<RateLimiter>,
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// Of snapshot/load.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkOverride {
    pub iface_id: String,
    pub host_dev_name: String,
}

pub type Mac = [u8; 6];

/// What an interface has whose `guest_mac` was not given.
const MAC_DEFAULT: Mac = [0x02, 0xfc, 0, 0, 0, 1];
const MTU_MIN: u16 = 68;

impl Network {
    pub fn check(&self) -> Outcome {
        if let Some(text) = &self.guest_mac
            && parse_mac(text).is_none()
        {
            return refuse(format!("Network config error: invalid MAC address {text}"));
        }
        match self.mtu {
            Some(mtu) if mtu < MTU_MIN => {
                refuse(format!("Network config error: MTU {mtu} is out of range [68, 65535]"))
            }
            _ => Ok(()),
        }
    }

    pub fn mac(&self) -> Mac {
        self.guest_mac.as_deref().and_then(parse_mac).unwrap_or(MAC_DEFAULT)
    }

    /// Errors are a message.
    pub fn open(&self) -> Result<Tap, String> {
        Tap::open(&self.host_dev_name).map_err(|why| format!("Open tap device failed: {why}"))
    }
}

fn parse_mac(text: &str) -> Option<Mac> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok())?).collect();
    bytes?.try_into().ok()
}
