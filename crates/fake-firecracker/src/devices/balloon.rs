//! /balloon.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::machine::Machine;
use crate::refusal::{Outcome, refuse};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Balloon {
    /// How much the guest is to give back.
    pub amount_mib: u32,
    pub deflate_on_oom: bool,
    #[serde(default)]
    pub stats_polling_interval_s: u16,
    #[serde(default)]
    pub free_page_hinting: bool,
    #[serde(default)]
    pub free_page_reporting: bool,
}

/// The body of PATCH.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonUpdate {
    pub amount_mib: u32,
}

/// The body of PATCH /balloon/statistics.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatisticsUpdate {
    pub stats_polling_interval_s: u16,
}

const PAGES_PER_MIB: u32 = 256;

impl Balloon {
    /// `word` says what failed: the text of PUT and of PATCH differ in it.
    pub fn check_amount(amount_mib: u32, machine: &Machine, word: &str) -> Outcome {
        if u64::from(amount_mib) > machine.mem_size_mib {
            return refuse(format!("Balloon {word} error: Amount of pages requested is too large."));
        }
        Ok(())
    }

    /// GET /balloon/statistics.
    pub fn statistics(&self, actual_mib: u32, machine: &Machine) -> Outcome<Value> {
        if self.stats_polling_interval_s == 0 {
            return refuse("Balloon config error: Statistics for the balloon device are not enabled.");
        }
        Ok(json!({
            "target_pages": self.amount_mib * PAGES_PER_MIB,
            "actual_pages": actual_mib * PAGES_PER_MIB,
            "target_mib": self.amount_mib,
            "actual_mib": actual_mib,
            "total_memory": machine.size_bytes(),
            "free_memory": machine.size_bytes() - (u64::from(actual_mib) << 20),
        }))
    }
}
