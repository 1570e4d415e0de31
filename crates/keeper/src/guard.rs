//! Ends a process that outlives the keeper. The parent-death signal does not hold for one that changes its user: a
//! jailer becomes the VMM that way. So a process of its own waits for the keeper's end.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::process::{Signal, pidfd_send_signal};

/// The argument by which this program is one.
pub const ARGUMENT: &str = "guard";

/// The guard waits for its standard input's end, which is this process's, and has the process on standard output.
pub struct Guard(Child);

impl Guard {
    pub fn start(process: &OwnedFd) -> io::Result<Self> {
        let child = Command::new("/proc/self/exe")
            .arg(ARGUMENT)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::from(process.as_fd().try_clone_to_owned()?))
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

/// The process has been reaped: nothing is left to guard.
impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn run() -> ExitCode {
    // Out of the way of whoever ends a group of processes.
    let _ = rustix::process::setsid();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let _ = pidfd_send_signal(std::io::stdout().as_fd(), Signal::KILL);
    ExitCode::SUCCESS
}
