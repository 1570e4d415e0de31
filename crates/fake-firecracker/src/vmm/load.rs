//! PUT /snapshot/load.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::start::{exit_without_huge_pages, new_generation};
use super::{AFTER_START, Machine, Vmm, host_clock_ms};
use crate::devices::Config;
use crate::devices::machine::HugePages;
use crate::devices::network::NetworkOverride;
use crate::devices::vsock::VsockOverride;
use crate::faults::hang;
use crate::guest;
use crate::guest_memory::{GuestMemory, PAGE_BYTES};
use crate::handshake::{self, Link};
use crate::refusal::{Outcome, Refusal, reason, refuse};
use crate::state_file::{self, State};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadBody {
    snapshot_path: PathBuf,
    mem_file_path: Option<PathBuf>,
    mem_backend: Option<Backend>,
    #[serde(default)]
    enable_diff_snapshots: bool,
    #[serde(default)]
    track_dirty_pages: bool,
    #[serde(default)]
    resume_vm: bool,
    #[serde(default)]
    network_overrides: Vec<NetworkOverride>,
    vsock_override: Option<VsockOverride>,
    #[serde(default)]
    clock_realtime: bool,
    huge_pages: Option<HugePagesOverride>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Backend {
    backend_type: BackendType,
    backend_path: PathBuf,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
enum BackendType {
    File,
    Uffd,
}

#[derive(Clone, Copy, Deserialize)]
enum HugePagesOverride {
    Snapshot,
    None,
    Transparent,
    #[serde(rename = "2M")]
    Hugetlbfs2M,
}

impl LoadBody {
    /// Errors are the text of a body that is not understood.
    fn backend(&self) -> Result<Backend, &'static str> {
        match (&self.mem_backend, &self.mem_file_path) {
            (Some(backend), None) => Ok(backend.clone()),
            (None, Some(path)) => Ok(Backend { backend_type: BackendType::File, backend_path: path.clone() }),
            (None, None) => Err("missing field: either `mem_backend` or `mem_file_path` is required"),
            (Some(_), Some(_)) => {
                Err("too many fields: either `mem_backend` or `mem_file_path` exclusively is required")
            }
        }
    }

    fn huge_pages(&self, config: &Config) -> HugePages {
        match self.huge_pages {
            None | Some(HugePagesOverride::Snapshot) => config.machine_config.huge_pages,
            Some(HugePagesOverride::None) => HugePages::None,
            Some(HugePagesOverride::Transparent) => HugePages::Transparent,
            Some(HugePagesOverride::Hugetlbfs2M) => HugePages::Hugetlbfs2M,
        }
    }
}

impl Vmm {
    /// Refusals leave a process that was not started; whatever fails later ends it.
    pub fn load_snapshot(&mut self, body: &LoadBody) -> Outcome {
        let backend = body.backend().map_err(|why| {
            Refusal::new(format!("An error occurred when deserializing the json body of a request: {why}."))
        })?;
        if self.machine.is_some() {
            return refuse(AFTER_START);
        }
        if self.boot_configured {
            return refuse(
                "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.",
            );
        }
        let restored = self.faults.read(&self.folder).and_then(|()| self.restore(body, &backend));
        restored.map_err(|why| Refusal {
            text: format!("Load snapshot error: Failed to restore from snapshot: {why}"),
            fatal: true,
        })
    }

    /// Errors are a message.
    fn restore(&mut self, body: &LoadBody, backend: &Backend) -> Result<(), String> {
        let state =
            read_state(body).map_err(|why| format!("Failed to get snapshot state from file: {why}"))?;
        let (memory, link) = self
            .map_memory(body, backend, &state.config)
            .map_err(|why| format!("Failed to load guest memory: {why}"))?;
        let faults = self.faults.now().clone();
        if faults.die_in_load {
            std::process::exit(faults.code());
        }
        if faults.hang_in_load {
            hang();
        }
        if let Some(text) = faults.fail_load {
            return Err(text);
        }
        self.config = state.config;
        let failed = |why| format!("Failed to build microVM from snapshot: Failed to restore devices: {why}");
        self.open_devices().map_err(|why| failed(format!("Error restoring MMIO devices: {why}")))?;

        // The devices that tell of a new life; a pager that serves nothing ends it here.
        new_generation(&memory);
        memory.read(guest::CLOCK, &mut [0; PAGE_BYTES as usize]);

        let slept_ms = if body.clock_realtime { 0 } else { host_clock_ms() - state.taken_at_ms };
        let clock_lag_ms = if body.clock_realtime { 0 } else { state.clock_lag_ms + slept_ms };
        let memory = Arc::new(memory);
        let guest = self.build_guest(memory.clone(), state.drivers_up, clock_lag_ms).map_err(failed)?;
        if body.resume_vm {
            guest.resume();
        }
        self.machine = Some(Machine {
            memory,
            guest,
            paused: !body.resume_vm,
            balloon_actual_mib: state.balloon_actual_mib,
            clock_lag_ms,
            memory_hotplug_requested_mib: 0,
            _link: link,
        });
        Ok(())
    }

    /// Errors are a message.
    fn map_memory(
        &self,
        body: &LoadBody,
        backend: &Backend,
        config: &Config,
    ) -> Result<(GuestMemory, Option<Link>), String> {
        let size_bytes = config.machine_config.size_bytes();
        let track = body.track_dirty_pages || body.enable_diff_snapshots;
        let huge_pages = body.huge_pages(config);
        if backend.backend_type == BackendType::File {
            let failed = |why: &str| format!("Error creating guest memory from file: {why}");
            if huge_pages == HugePages::Hugetlbfs2M {
                return Err(failed(
                    "Cannot restore hugetlbfs backed snapshot by mapping the memory file. Please use uffd.",
                ));
            }
            let load = |error| failed(&format!("Failed to load guest memory: {}", reason(&error)));
            let file = File::open(&backend.backend_path).map_err(load)?;
            if file.metadata().map_err(load)?.len() < size_bytes {
                let why = "Total sum of memory regions exceeds largest possible file offset";
                return Err(failed(&format!("Failed to restore guest memory: {why}")));
            }
            return GuestMemory::private(&file, size_bytes, track).map(|memory| (memory, None)).map_err(load);
        }
        exit_without_huge_pages(huge_pages);
        let failed = |why| format!("Error creating guest memory from uffd: {why}");
        let memory = GuestMemory::anonymous(size_bytes, track).map_err(|error| failed(error.to_string()))?;
        let link = handshake::give(&memory, &backend.backend_path, &self.version).map_err(failed)?;
        Ok((memory, Some(link)))
    }

    /// Opens what the snapshot's devices had open. Errors are a message.
    fn open_devices(&mut self) -> Result<(), String> {
        for drive in &self.config.drives {
            if let Some(file) = drive.open().map_err(|why| format!("Block: {why}"))? {
                self.open.drives.insert(drive.drive_id.clone(), file);
            }
        }
        for network in &self.config.network_interfaces {
            let tap =
                network.open().map_err(|why| format!("Net: Failed to create a network device: {why}"))?;
            self.open.taps.insert(network.iface_id.clone(), tap);
        }
        if let Some(vsock) = &self.config.vsock {
            self.open.vsock = Some(vsock.bind().map_err(|why| format!("VsockUnixBackend: {why}"))?);
        }
        Ok(())
    }
}

/// The snapshot's state with the overrides of the call. Errors are a message.
fn read_state(body: &LoadBody) -> Result<State, String> {
    let mut state = state_file::read(&body.snapshot_path)?;
    for change in &body.network_overrides {
        let mut interfaces = state.config.network_interfaces.iter_mut();
        let found = interfaces
            .find(|network| network.iface_id == change.iface_id)
            .ok_or("Unknown Network Device.")?;
        found.host_dev_name.clone_from(&change.host_dev_name);
    }
    if let Some(change) = &body.vsock_override {
        let vsock = state.config.vsock.as_mut().ok_or("Unknown Vsock Device.")?;
        vsock.uds_path.clone_from(&change.uds_path);
    }
    Ok(state)
}
