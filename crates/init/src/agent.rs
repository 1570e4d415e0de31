//! The guest agent: started from the initramfs file, started again whenever it ends.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, wait};

use crate::failure::{Context, Failure};
use crate::stop;

const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// An agent that lived this long did not die of its start.
const STEADY: Duration = Duration::from_secs(10);

/// Runs the agent and reaps every process that ends, until the machine stops.
pub fn keep_running(agent: &File) -> Result<(), Failure> {
    let mut back_off = BACK_OFF_MIN;
    loop {
        let started = Instant::now();
        let pid = start(agent).context("start the guest agent")?;
        let status = reap_until(pid)?;
        stop::wait_if_stopping();
        if started.elapsed() > STEADY {
            back_off = BACK_OFF_MIN;
        }
        eprintln!("thaw-init: guest agent ended ({status}), restarting in {} ms", back_off.as_millis());
        sleep(back_off);
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

/// The file has no path below the new root: it is executed through this process's descriptor.
fn start(agent: &File) -> io::Result<Pid> {
    let child = Command::new(format!("/proc/self/fd/{}", agent.as_raw_fd()))
        .arg0("thaw-envd")
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .spawn()?;
    // The handle is dropped on purpose: `reap_until` waits for every child, this one included.
    Ok(Pid::from_child(&child))
}

fn reap_until(agent: Pid) -> Result<String, Failure> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == agent => {
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => format!("exit status {code}"),
                    (None, Some(signal)) => format!("signal {signal}"),
                    (None, None) => "unknown status".to_owned(),
                });
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(cause) => return Err(cause).context("wait for the guest agent"),
        }
    }
}
