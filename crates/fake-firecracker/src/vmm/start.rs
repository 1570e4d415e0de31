//! InstanceStart.

use std::sync::Arc;

use super::{Machine, Vmm};
use crate::devices::machine::HugePages;
use crate::guest::{self, Guest, Wiring};
use crate::guest_memory::GuestMemory;
use crate::refusal::{Outcome, Refusal};

/// What a process ends with whose hugetlb pool is empty: there is none here.
const EXIT_SIGBUS: i32 = 149;

impl Vmm {
    pub fn start(&mut self) -> Outcome {
        self.before_start()?;
        let failed = |why: String| Refusal::new(format!("Start microvm error: {why}"));
        if self.config.boot_source.kernel_image_path.is_empty() {
            return Err(failed("Cannot start microvm without kernel configuration.".into()));
        }
        let load = |why: String| failed(format!("Failed to load kernel: {why}"));
        self.config.boot_source.load(&self.version).map_err(load)?;
        let machine = &self.config.machine_config;
        exit_without_huge_pages(machine.huge_pages);
        if machine.size_bytes() < guest::MEMORY_BYTES_MIN {
            return Err(load("Kernel Loader: the kernel does not fit into memory".into()));
        }
        let memory = GuestMemory::anonymous(machine.size_bytes(), machine.track_dirty_pages)
            .map_err(|error| failed(format!("Cannot create the guest memory: {error}")))?;
        guest::install(&memory);
        new_generation(&memory);
        let memory = Arc::new(memory);
        let guest = self
            .build_guest(memory.clone(), false, 0)
            .map_err(|why| failed(format!("Failed to create device manager: {why}")))?;
        guest.resume();
        self.machine = Some(Machine {
            memory,
            guest,
            paused: false,
            balloon_actual_mib: 0,
            clock_lag_ms: 0,
            memory_hotplug_requested_mib: 0,
            _link: None,
        });
        Ok(())
    }

    /// A guest that stands still, with the root drive and the first interface. Errors are a message.
    pub(super) fn build_guest(
        &mut self,
        memory: Arc<GuestMemory>,
        restored_with_drivers: bool,
        clock_lag_ms: i64,
    ) -> Result<Guest, String> {
        let serial = self.open_serial()?;
        let root = self.config.drives.iter().find(|drive| drive.is_root_device);
        if let Some(file) = root.and_then(|drive| self.open.drives.get(&drive.drive_id)) {
            self.open.root.replace(file.try_clone().map_err(|error| error.to_string())?);
        }
        let network = self.config.network_interfaces.first().and_then(|network| {
            let tap = self.open.taps.remove(&network.iface_id)?;
            Some((tap, network.mac()))
        });
        let wiring = Wiring {
            memory,
            root: self.open.root.clone(),
            network,
            serial,
            faults: self.faults.clone(),
            clock_lag_ms,
            drivers_up: restored_with_drivers,
        };
        Guest::new(wiring).map_err(|error| error.to_string())
    }
}

pub(super) fn exit_without_huge_pages(huge_pages: HugePages) {
    if huge_pages == HugePages::Hugetlbfs2M {
        std::process::exit(EXIT_SIGBUS);
    }
}

/// Tells the guest that it is a VM that was never there before.
pub(super) fn new_generation(memory: &GuestMemory) {
    let mut id = [0; 16];
    // Sixteen bytes are never handed out in part.
    let _ = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty());
    memory.write(guest::GENERATION, &id);
}
