//! PID 1 of a sandbox. It lives in the initramfs and hands the machine over to the guest agent:
//!
//! ```text
//! modules ─► root disk ─► mounts ─► settings ─► network ─► agent ⟲ (reap, restart) ─► stop
//! ```
//!
//! Anything that fails before the agent runs ends the VM: the reason is the last line on the console.

mod agent;
mod failure;
mod modules;
mod mounts;
mod network;
mod settings;
mod stop;

use std::fs::File;
use std::process::ExitCode;

use failure::{Context, Failure};

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("thaw-init: only runs as process 1 of a sandbox");
        return ExitCode::from(2);
    }
    if let Err(failure) = run() {
        eprintln!("thaw-init: {failure}");
    }
    stop::restart_machine();
    ExitCode::FAILURE
}

fn run() -> Result<(), Failure> {
    // Opened before the root changes: images do not contain the agent.
    let agent = File::open("/envd").context("open /envd")?;
    mounts::mount_devices()?;
    modules::load_all()?;
    mounts::enter_root_disk()?;
    mounts::mount_system()?;
    settings::apply()?;
    network::bring_up()?;
    stop::on_signal()?;
    agent::keep_running(&agent)
}
