//! PATCH of devices, and MMDS data.

use serde_json::Value;

use super::Vmm;
use crate::devices::balloon::{Balloon, BalloonUpdate, StatisticsUpdate};
use crate::devices::drive::DriveUpdate;
use crate::devices::hotplug::MemoryHotplugUpdate;
use crate::devices::mmds;
use crate::devices::network::NetworkUpdate;
use crate::refusal::{Outcome, Refusal, refuse};

impl Vmm {
    /// Opens the file anew. For vhost-user and without a path nothing changes.
    pub fn update_drive(&mut self, update: DriveUpdate) -> Outcome {
        self.machine()?;
        let failed = |why: &str| {
            let text =
                format!("Unable to patch the block device: {why} Please verify the request arguments.");
            Refusal::new(format!("Drive config error: {text}"))
        };
        let found = self.config.drives.iter_mut().find(|drive| drive.drive_id == update.drive_id);
        let drive = found.ok_or_else(|| failed("Device not found."))?;
        let mut changed = drive.clone();
        if let Some(path) = update.path_on_host {
            changed.path_on_host = Some(path);
            if let Some(file) = changed.open().map_err(|why| failed(&why))? {
                if changed.is_root_device {
                    self.open.root.replace(file.try_clone().map_err(|error| failed(&error.to_string()))?);
                }
                self.open.drives.insert(update.drive_id, file);
            }
        }
        changed.rate_limiter = update.rate_limiter.or(changed.rate_limiter);
        *drive = changed;
        Ok(())
    }

    pub fn update_network(&mut self, update: NetworkUpdate) -> Outcome {
        self.machine()?;
        let found =
            self.config.network_interfaces.iter_mut().find(|network| network.iface_id == update.iface_id);
        let Some(network) = found else {
            return refuse("Network config error: Unable to patch the network device: Device not found.");
        };
        network.rx_rate_limiter = update.rx_rate_limiter.or(network.rx_rate_limiter.take());
        network.tx_rate_limiter = update.tx_rate_limiter.or(network.tx_rate_limiter.take());
        Ok(())
    }

    /// The guest moves towards the amount after the answer.
    pub fn update_balloon(&mut self, update: BalloonUpdate) -> Outcome {
        let drivers_up = self.machine()?.guest.drivers_up();
        let machine = self.config.machine_config.clone();
        let balloon = self.balloon()?;
        if !drivers_up {
            return refuse("Balloon update error: Device not activated yet.");
        }
        Balloon::check_amount(update.amount_mib, &machine, "update")?;
        balloon.amount_mib = update.amount_mib;
        Ok(())
    }

    pub fn update_statistics(&mut self, update: StatisticsUpdate) -> Outcome {
        self.machine()?;
        let balloon = self.balloon()?;
        if (balloon.stats_polling_interval_s == 0) != (update.stats_polling_interval_s == 0) {
            return refuse("Balloon update error: Cannot enable/disable the statistics after boot.");
        }
        balloon.stats_polling_interval_s = update.stats_polling_interval_s;
        Ok(())
    }

    fn balloon(&mut self) -> Outcome<&mut Balloon> {
        match &mut self.config.balloon {
            Some(balloon) => Ok(balloon),
            None => refuse("Balloon config error: No balloon device found."),
        }
    }

    pub fn update_memory_hotplug(&mut self, update: MemoryHotplugUpdate) -> Outcome {
        let total_mib = self.config.memory_hotplug.as_ref().map(|memory| memory.total_size_mib);
        let machine = self.machine()?;
        let why = match total_mib {
            None => "Device not found.",
            Some(_) if !machine.guest.drivers_up() => "Device is not active",
            Some(total_mib) if update.requested_size_mib > total_mib => "Requested size is too large",
            Some(_) => {
                machine.memory_hotplug_requested_mib = update.requested_size_mib;
                return Ok(());
            }
        };
        refuse(format!("Memory hotplug update error: {why}"))
    }

    pub fn put_mmds(&mut self, data: Value) -> Outcome {
        self.mmds = data;
        Ok(())
    }

    pub fn patch_mmds(&mut self, patch: Value) -> Outcome {
        if self.mmds.is_null() {
            return refuse("MMDS error: The MMDS data store is not initialized.");
        }
        mmds::merge(&mut self.mmds, patch);
        Ok(())
    }
}
