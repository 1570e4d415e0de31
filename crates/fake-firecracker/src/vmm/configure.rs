//! PUT of what is there before the start, or plugged in after it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{AFTER_START, BEFORE_START, Vmm};
use crate::devices::Entropy;
use crate::devices::balloon::Balloon;
use crate::devices::boot_source::BootSource;
use crate::devices::drive::Drive;
use crate::devices::hotplug::{MemoryHotplug, Pmem};
use crate::devices::machine::Machine;
use crate::devices::mmds::MmdsConfig;
use crate::devices::network::Network;
use crate::devices::observe;
use crate::devices::vsock::Vsock;
use crate::refusal::{Outcome, Refusal, reason, refuse};

const NO_PCI: &str = "PCI is not enabled";

impl Vmm {
    pub fn set_machine(&mut self, change: impl FnOnce(&Machine) -> Machine) -> Outcome {
        let config = self.before_start()?;
        let machine = change(&config.machine_config);
        machine.check()?;
        config.machine_config = machine;
        Ok(())
    }

    pub fn set_boot_source(&mut self, boot_source: BootSource) -> Outcome {
        let config = self.before_start()?;
        boot_source.check()?;
        config.boot_source = boot_source;
        Ok(())
    }

    pub fn put_drive(&mut self, drive: Drive) -> Outcome {
        self.before_start_or_pluggable()?;
        let is_other_root = |other: &Drive| other.is_root_device && other.drive_id != drive.drive_id;
        if drive.is_root_device && self.config.drives.iter().any(is_other_root) {
            return refuse("Drive config error: A root block device already exists!");
        }
        let opened = drive.open().map_err(|why| {
            Refusal::new(format!("Drive config error: Unable to create the virtio block device: {why}"))
        })?;
        self.config.drives.retain(|other| other.drive_id != drive.drive_id);
        self.open.drives.remove(&drive.drive_id);
        if let Some(file) = opened {
            self.open.drives.insert(drive.drive_id.clone(), file);
        }
        self.config.drives.push(drive);
        Ok(())
    }

    pub fn put_network(&mut self, network: Network) -> Outcome {
        self.before_start_or_pluggable()?;
        network.check()?;
        let taken =
            |other: &&Network| other.iface_id != network.iface_id && other.guest_mac == network.guest_mac;
        if let Some(mac) = &network.guest_mac
            && self.config.network_interfaces.iter().find(taken).is_some()
        {
            return refuse(format!("Network config error: The MAC address is already in use: {mac}"));
        }
        // The one of the same id goes first: both may name the same tap.
        self.config.network_interfaces.retain(|other| other.iface_id != network.iface_id);
        self.open.taps.remove(&network.iface_id);
        let tap = network.open().map_err(|why| {
            Refusal::new(format!("Network config error: Could not create the network device: {why}"))
        })?;
        self.open.taps.insert(network.iface_id.clone(), tap);
        self.config.network_interfaces.push(network);
        Ok(())
    }

    /// DELETE of a drive or an interface that was plugged in, by its id; the guest sees nothing of it.
    pub fn unplug(&mut self, kind: &str, id: &str) -> Outcome {
        if self.machine.is_none() {
            return refuse(BEFORE_START);
        }
        if !self.pci {
            return refuse(NO_PCI);
        }
        let found = match kind {
            "drives" => self.open.drives.remove(id).is_some(),
            _ => self.open.taps.remove(id).is_some(),
        };
        self.config.drives.retain(|drive| kind != "drives" || drive.drive_id != id);
        self.config.network_interfaces.retain(|network| kind == "drives" || network.iface_id != id);
        if found { Ok(()) } else { refuse(format!("Device not found: {id}")) }
    }

    fn before_start_or_pluggable(&mut self) -> Outcome {
        match (&self.machine, self.pci) {
            (None, _) => self.before_start().map(|_| ()),
            (Some(_), true) => Ok(()),
            (Some(_), false) => refuse(NO_PCI),
        }
    }

    /// Binds the socket at once. The one of an earlier PUT is removed, whatever its path.
    pub fn set_vsock(&mut self, vsock: Vsock) -> Outcome {
        self.before_start()?;
        if let Some(before) = self.config.vsock.take() {
            let _ = std::fs::remove_file(before.uds_path);
        }
        let bound = vsock.bind().map_err(|why| {
            Refusal::new(format!("Vsock config error: Cannot create backend for vsock device: {why}"))
        });
        self.open.vsock = Some(bound?);
        self.config.vsock = Some(vsock);
        Ok(())
    }

    pub fn set_entropy(&mut self, entropy: Entropy) -> Outcome {
        self.before_start()?.entropy = Some(entropy);
        Ok(())
    }

    pub fn set_balloon(&mut self, balloon: Balloon) -> Outcome {
        let config = self.before_start()?;
        Balloon::check_amount(balloon.amount_mib, &config.machine_config, "config")?;
        config.balloon = Some(balloon);
        Ok(())
    }

    pub fn set_cpu_config(&mut self, template: Value) -> Outcome {
        self.before_start()?.cpu_config = Some(template);
        Ok(())
    }

    pub fn set_mmds_config(&mut self, mmds: MmdsConfig) -> Outcome {
        let config = self.before_start()?;
        mmds.check(&config.network_interfaces)?;
        config.mmds_config = Some(mmds);
        Ok(())
    }

    pub fn set_memory_hotplug(&mut self, memory: MemoryHotplug) -> Outcome {
        let config = self.before_start()?;
        memory.check()?;
        config.memory_hotplug = Some(memory);
        Ok(())
    }

    pub fn put_pmem(&mut self, pmem: Pmem) -> Outcome {
        let config = self.before_start()?;
        pmem.check()?;
        config.pmem.retain(|other| other.id != pmem.id);
        config.pmem.push(pmem);
        Ok(())
    }

    /// Before a load too: nothing of it comes with a snapshot.
    pub fn set_serial(&mut self, path: Option<PathBuf>) -> Outcome {
        if self.machine.is_some() {
            return refuse(AFTER_START);
        }
        self.open.serial_path = path;
        Ok(())
    }

    /// Once.
    pub fn set_metrics(&mut self, path: &Path) -> Outcome {
        let failed = |why: String| {
            refuse(format!(
                "Metrics error: Cannot initialize the metrics system due to bad user input: {why}"
            ))
        };
        if self.open.metrics.is_some() {
            return failed("Reinitialization of metrics not allowed.".into());
        }
        match observe::open(path) {
            Ok(file) => self.open.metrics = Some(file),
            Err(error) => return failed(reason(&error)),
        }
        Ok(())
    }
}
