//! GET.

use serde_json::{Value, json};

use super::Vmm;
use crate::refusal::{Outcome, refuse};

impl Vmm {
    pub fn instance(&self) -> Value {
        let state = match &self.machine {
            None => "Not started",
            Some(machine) if machine.paused => "Paused",
            Some(_) => "Running",
        };
        json!({
            "id": self.id,
            "state": state,
            "vmm_version": self.version.to_string(),
            "app_name": "Firecracker",
        })
    }

    pub fn firecracker_version(&self) -> Value {
        json!({ "firecracker_version": self.version.to_string() })
    }

    pub fn vm_config(&self) -> Value {
        to_json(&self.config)
    }

    pub fn machine_config(&self) -> Value {
        to_json(&self.config.machine_config)
    }

    pub fn balloon_config(&self) -> Outcome<Value> {
        match &self.config.balloon {
            Some(balloon) => Ok(to_json(balloon)),
            None => refuse("Balloon config error: No balloon device found."),
        }
    }

    pub fn balloon_statistics(&mut self) -> Outcome<Value> {
        let actual_mib = self.machine()?.balloon_actual_mib;
        match &self.config.balloon {
            Some(balloon) => balloon.statistics(actual_mib, &self.config.machine_config),
            None => refuse("Balloon config error: No balloon device found."),
        }
    }

    pub fn memory_hotplug(&self) -> Outcome<Value> {
        let Some(memory) = &self.config.memory_hotplug else {
            return refuse("Memory hotplug config error: Device not found.");
        };
        let requested = self.machine.as_ref().map_or(0, |machine| machine.memory_hotplug_requested_mib);
        let mut shown = to_json(memory);
        shown["requested_size_mib"] = requested.into();
        shown["plugged_size_mib"] = requested.into();
        Ok(shown)
    }

    pub fn mmds(&self) -> Value {
        if self.mmds.is_null() { json!({}) } else { self.mmds.clone() }
    }
}

fn to_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("configurations serialise")
}
