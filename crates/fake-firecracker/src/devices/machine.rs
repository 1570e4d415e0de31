//! /machine-config.

use serde::{Deserialize, Serialize};

use crate::refusal::{Outcome, refuse};

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub enum HugePages {
    #[default]
    None,
    Transparent,
    #[serde(rename = "2M")]
    Hugetlbfs2M,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum CpuTemplate {
    C3,
    T2,
    T2S,
    T2CL,
    T2A,
    V1N1,
    None,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    pub vcpu_count: u8,
    pub mem_size_mib: u64,
    #[serde(default)]
    pub smt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_template: Option<CpuTemplate>,
    #[serde(default)]
    pub track_dirty_pages: bool,
    #[serde(default)]
    pub huge_pages: HugePages,
}

/// The body of PATCH.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineUpdate {
    vcpu_count: Option<u8>,
    mem_size_mib: Option<u64>,
    smt: Option<bool>,
    cpu_template: Option<CpuTemplate>,
    track_dirty_pages: Option<bool>,
    huge_pages: Option<HugePages>,
}

const VCPU_COUNT_MAX: u8 = 32;

impl Default for Machine {
    fn default() -> Machine {
        Machine {
            vcpu_count: 1,
            mem_size_mib: 128,
            smt: false,
            cpu_template: None,
            track_dirty_pages: false,
            huge_pages: HugePages::None,
        }
    }
}

impl Machine {
    pub fn updated(&self, update: &MachineUpdate) -> Machine {
        Machine {
            vcpu_count: update.vcpu_count.unwrap_or(self.vcpu_count),
            mem_size_mib: update.mem_size_mib.unwrap_or(self.mem_size_mib),
            smt: update.smt.unwrap_or(self.smt),
            cpu_template: update.cpu_template.or(self.cpu_template),
            track_dirty_pages: update.track_dirty_pages.unwrap_or(self.track_dirty_pages),
            huge_pages: update.huge_pages.unwrap_or(self.huge_pages),
        }
    }

    pub fn check(&self) -> Outcome {
        let odd = self.smt && self.vcpu_count > 1 && self.vcpu_count % 2 == 1;
        if self.vcpu_count == 0 || self.vcpu_count > VCPU_COUNT_MAX || odd {
            return refuse(
                "Machine config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an \
                 even number if SMT is enabled.",
            );
        }
        if self.mem_size_mib == 0 || self.huge_pages != HugePages::None && self.mem_size_mib % 2 == 1 {
            return refuse(
                "Machine config error: The memory size (MiB) is either 0, or not a multiple of the configured page \
                 size.",
            );
        }
        Ok(())
    }

    pub fn size_bytes(&self) -> u64 {
        self.mem_size_mib << 20
    }
}
