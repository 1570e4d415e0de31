//! The sandbox's end: nothing of it may be left on the host.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use serde_json::{Value, json};
use thaw_control::ControlError;

use crate::keeper::Keeper;

const REAP_TIMEOUT: Duration = Duration::from_secs(10);

impl Keeper {
    pub fn end(&mut self) -> Result<Value, ControlError> {
        self.end_children()?;
        self.remove_traces();
        self.ended = true;
        Ok(json!({}))
    }

    /// Kills and reaps every child, VMM first: it must never run on without its pager.
    fn end_children(&mut self) -> Result<(), ControlError> {
        let mut running: Vec<_> = self.children.values_mut().filter(|child| child.is_running()).collect();
        running.sort_by_key(|child| child.role.as_deref() != Some("vmm"));
        for child in &running {
            child.signal(Signal::KILL)?;
        }
        // A VMM inside a FUSE request cannot die before the request is answered or the session is gone.
        self.kept.clear();
        for child in running {
            await_exit(&child.pidfd)?;
            child.reap()?;
        }
        Ok(())
    }

    fn remove_traces(&mut self) {
        self.receive = None;
        self.jail = None;
        for dir in [self.run_dir.join("vmm"), self.run_dir.clone()] {
            if let Err(error) = remove_sockets(&dir) {
                eprintln!("{}: {error}", dir.display());
            }
        }
    }
}

fn await_exit(pidfd: &impl AsFd) -> Result<(), ControlError> {
    let timeout =
        REAP_TIMEOUT.try_into().map_err(|_| ControlError::new("internal", "timeout out of range"))?;
    let ended = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)).map_err(io::Error::from)?;
    if ended == 0 {
        return Err(ControlError::new("timeout", "a killed process does not end"));
    }
    Ok(())
}

/// The VMM may have put anything there, but it is dead by now and no link is followed.
fn remove_sockets(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
