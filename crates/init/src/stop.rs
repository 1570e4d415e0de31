//! The end of the machine. Process 1 is asked by signal: TERM and INT (Ctrl-Alt-Del), and USR1, USR2 as other
//! small inits understand them. All mean the same: the VM ends by a reset, which is what both VMMs exit on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use rustix::fs::sync;
use rustix::mount::{MountFlags, mount_remount};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::system::{RebootCommand, reboot};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::failure::{Context, Failure};

const GRACE: Duration = Duration::from_millis(300);
const KILL_WAIT: Duration = Duration::from_millis(20);

static STOPPING: AtomicBool = AtomicBool::new(false);

/// Stops the machine at the first of the signals. Ctrl-Alt-Del becomes one instead of an immediate reset.
pub fn on_signal() -> Result<(), Failure> {
    reboot(RebootCommand::CadOff).context("take Ctrl-Alt-Del")?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1, SIGUSR2]).context("handle signals")?;
    thread::Builder::new()
        .name("stop".to_owned())
        .spawn(move || {
            if signals.forever().next().is_some() {
                STOPPING.store(true, Ordering::SeqCst);
                end_processes();
                restart_machine();
            }
        })
        .context("start the signal thread")?;
    Ok(())
}

/// Never returns once a stop has begun: the agent's end is part of it.
pub fn wait_if_stopping() {
    while STOPPING.load(Ordering::SeqCst) {
        thread::park();
    }
}

/// Writes everything to disk and resets the machine. Returns only if the kernel refuses.
pub fn restart_machine() {
    sync();
    // Fails while a file is open for writing; the journal covers that.
    let _ = mount_remount("/", MountFlags::RDONLY, "");
    let _ = reboot(RebootCommand::Restart);
}

fn end_processes() {
    // kill(2) of the "group" 1 is kill(-1): every process but this one.
    let _ = kill_process_group(Pid::INIT, Signal::TERM);
    sleep(GRACE);
    let _ = kill_process_group(Pid::INIT, Signal::KILL);
    sleep(KILL_WAIT);
}
