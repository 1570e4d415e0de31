//! The VMM's process: who it is and whether it runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

pub struct Process {
    pub pid: i32,
    pidfd: OwnedFd,
}

impl Process {
    /// Opens a peer by its process id. It must be a process of `uid`: the peer may have ended, and its id be
    /// another's by now.
    pub fn open(pid: i32, uid: u32) -> io::Result<Self> {
        let raw = Pid::from_raw(pid).ok_or_else(|| io::Error::other("the peer has no process id here"))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty())?;
        let owner = rustix::fs::stat(format!("/proc/{pid}"))?.st_uid;
        if owner != uid {
            return Err(io::Error::other(format!("it belongs to uid {owner}, not {uid}")));
        }
        Ok(Self { pid, pidfd })
    }

    pub fn is_running(&self) -> io::Result<bool> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
        Ok(rustix::io::retry_on_intr(|| poll(&mut polled, Some(&now)))? == 0)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
