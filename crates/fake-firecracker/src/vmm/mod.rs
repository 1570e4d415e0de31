//! The one VM of a process: what is configured, what is open, and the machine once there is one. One file per verb.

mod balloon;
mod configure;
mod create;
mod load;
mod run;
mod show;
mod start;
mod update;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::args::Args;
use crate::devices::Config;
use crate::devices::observe::Serial;
use crate::faults::FaultPlan;
use crate::guest::{Guest, RootDrive};
use crate::guest_memory::GuestMemory;
use crate::handshake::Link;
use crate::refusal::{Outcome, refuse};
use crate::tap::Tap;
use crate::version::Version;

pub struct Vmm {
    pub id: String,
    pub version: Version,
    pub faults: FaultPlan,
    /// Of the API socket, and of `faults.json`.
    folder: PathBuf,
    pci: bool,
    config: Config,
    open: Open,
    mmds: Value,
    /// Something was configured that a snapshot would bring with it.
    boot_configured: bool,
    machine: Option<Machine>,
}

/// What devices have open on the host.
#[derive(Default)]
struct Open {
    drives: BTreeMap<String, File>,
    taps: BTreeMap<String, Tap>,
    vsock: Option<UnixListener>,
    serial_path: Option<PathBuf>,
    metrics: Option<File>,
    root: RootDrive,
}

/// A VM that was started or loaded.
struct Machine {
    memory: Arc<GuestMemory>,
    guest: Guest,
    paused: bool,
    balloon_actual_mib: u32,
    /// How far the guest's clock is behind the host's; milliseconds.
    clock_lag_ms: i64,
    memory_hotplug_requested_mib: u64,
    /// Of a VM whose memory a pager serves.
    _link: Option<Link>,
}

const AFTER_START: &str = "The requested operation is not supported after starting the microVM.";
const BEFORE_START: &str = "The requested operation is not supported before starting the microVM.";

impl Vmm {
    /// Errors are a message.
    pub fn new(args: &Args) -> Result<Vmm, String> {
        let folder = args.api_socket.parent().unwrap_or(Path::new("")).to_path_buf();
        let faults = FaultPlan::default();
        faults.read(&folder)?;
        let version = match &faults.now().version {
            Some(text) => Version::parse(text)?,
            None => Version::of_environment()?,
        };
        let mut vmm = Vmm {
            id: args.id.clone(),
            version,
            faults,
            folder,
            pci: args.pci,
            config: Config::default(),
            open: Open::default(),
            mmds: Value::Null,
            boot_configured: false,
            machine: None,
        };
        if let Some(path) = &args.metrics_path {
            vmm.set_metrics(path).map_err(|refusal| refusal.text)?;
        }
        Ok(vmm)
    }

    /// What is configured before the start, and not after it.
    fn before_start(&mut self) -> Outcome<&mut Config> {
        if self.machine.is_some() {
            return refuse(AFTER_START);
        }
        self.boot_configured = true;
        Ok(&mut self.config)
    }

    fn machine(&mut self) -> Outcome<&mut Machine> {
        match &mut self.machine {
            Some(machine) => Ok(machine),
            None => refuse(BEFORE_START),
        }
    }

    /// Listens for the host's connections to the guest.
    pub fn vsock(&self) -> Option<&UnixListener> {
        self.open.vsock.as_ref()
    }

    /// Errors are a message.
    fn open_serial(&self) -> Result<Serial, String> {
        match &self.open.serial_path {
            None => Ok(Serial::Stdout),
            Some(path) => match crate::devices::observe::open(path) {
                Ok(file) => Ok(Serial::File(file)),
                // The real one's words; it was no eventfd.
                Err(error) => Err(format!("Error with EventFd: {}", strip_code(&error))),
            },
        }
    }
}

fn strip_code(error: &std::io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().into()
}

/// Milliseconds since 1970.
fn host_clock_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
