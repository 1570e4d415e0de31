//! One process of the sandbox, from its start to the reason of its end.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use serde::Serialize;
use thaw_control::{CHILD_FD, Channel, ControlError};

use crate::connection::is_later;
use crate::exec::{Launch, launch};
use crate::guard::Guard;
use crate::jail::Jail;
use crate::request::{Capability, ChildSpec, Root};
use crate::ring::Ring;
use crate::source::Stock;

pub struct Child {
    /// None for a one-shot `run`.
    pub role: Option<String>,
    pub pid: Pid,
    /// Clock ticks since boot, as in /proc/PID/stat: with the pid it names this process and no later one.
    pub start_time: u64,
    pub pidfd: OwnedFd,
    guard: Option<Guard>,
    pub channel: Option<Channel>,
    pub output: Option<File>,
    pub log: Ring,
    pub exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Exit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

impl Child {
    pub fn spawn(role: Option<String>, spec: ChildSpec, stock: &mut Stock<'_>) -> Result<Self, ControlError> {
        spec.check()?;
        let root = jail_root(spec.root, stock.jail)?;
        let mut fds = Vec::new();
        for inherited in &spec.fds {
            fds.push((inherited.number, inherited.source.open(stock)?));
        }
        let channel = if spec.control {
            let (ours, theirs) = Channel::pair()?;
            rustix::io::ioctl_fionbio(&ours, true).map_err(io::Error::from)?;
            fds.push((CHILD_FD, theirs.as_fd().try_clone_to_owned()?));
            Some(ours)
        } else {
            None
        };
        let netns = spec.netns.as_ref().map(open_netns).transpose()?;
        let (output, output_end) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        rustix::io::ioctl_fionbio(&output, true).map_err(io::Error::from)?;
        let program = spec.argv[0].clone();
        let pid = launch(Launch {
            rlimits: spec.rlimits.list(),
            argv: spec.argv,
            env: spec.env.into_iter().collect(),
            uid: spec.uid,
            gid: spec.gid,
            caps: Capability::set(&spec.caps),
            privileged: spec.jailer,
            root,
            netns,
            fds,
            nice: spec.nice,
            output: output_end,
        })
        .map_err(|error| ControlError::new("internal", format!("start of {program}: {error}")))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
        let guard = if spec.jailer { Some(Guard::start(&pidfd)?) } else { None };
        Ok(Self {
            role,
            pid,
            start_time: start_time(pid)?,
            pidfd,
            guard,
            channel,
            output: Some(File::from(output)),
            log: Ring::new(spec.log_bytes),
            exit: None,
        })
    }

    pub fn is_running(&self) -> bool {
        self.exit.is_none()
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what the child wrote into the ring.
    pub fn drain_output(&mut self) {
        let mut chunk = [0; 16 << 10];
        while let Some(output) = &mut self.output {
            match output.read(&mut chunk) {
                Ok(0) => self.output = None,
                Ok(count) => self.log.push(&chunk[..count]),
                Err(error) if is_later(&error) => return,
                Err(_) => self.output = None,
            }
        }
    }

    /// Reaps the child if it has ended.
    pub fn reap(&mut self) -> io::Result<Option<Exit>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let Some(status) = waitid(WaitId::PidFd(self.pidfd.as_fd()), options)? else {
            return Ok(None);
        };
        let exit = Exit { code: status.exit_status(), signal: status.terminating_signal() };
        self.drain_output();
        self.output = None;
        self.channel = None;
        self.guard = None;
        self.exit = Some(exit);
        Ok(Some(exit))
    }
}

fn jail_root(root: Root, jail: Option<&Jail>) -> Result<Option<CString>, ControlError> {
    match (root, jail) {
        (Root::Host, _) => Ok(None),
        (Root::Jail, None) => Err(ControlError::new("invalid_state", "there is no jail yet")),
        (Root::Jail, Some(jail)) => {
            let path = CString::new(jail.root().as_os_str().as_bytes()).map_err(io::Error::from)?;
            Ok(Some(path))
        }
    }
}

fn open_netns(path: &String) -> Result<OwnedFd, ControlError> {
    rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| ControlError::new("internal", format!("{path}: {error}")))
}

/// Field 22 of /proc/PID/stat, counted after the command name, which may contain anything.
fn start_time(pid: Pid) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    fields
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::other("unreadable /proc/PID/stat"))
}
