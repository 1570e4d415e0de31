//! Making the process: its credentials, session, cgroup and place in the order of dying.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use tokio::process::{Child, Command};

use crate::user::User;

pub struct Launch {
    pub cmd: String,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    pub user: User,
    /// A pipe; else /dev/null.
    pub stdin: bool,
}

/// Users' processes die before the agent when memory runs out.
const OOM_SCORE: &[u8] = b"100";
/// The agent itself may open more; these are the limits that distributions give to logins.
const OPEN_FILES: Rlimit = Rlimit { current: Some(1024), maximum: Some(524_288) };

/// Starts the program as the leader of a session of its own. Blocks until it was executed, or failed to.
pub fn launch(request: &Launch, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Child> {
    let mut command = Command::new(&request.cmd);
    command.args(&request.args).env_clear().envs(&request.env);
    command.stdin(if request.stdin { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());

    let user = request.user.clone();
    let cwd = std::ffi::CString::new(request.cwd.as_os_str().as_encoded_bytes())?;
    let cgroup = cgroup.map(|fd| fd.as_raw_fd());
    let enter = move || -> io::Result<()> {
        rustix::process::setsid()?;
        if let Some(cgroup) = cgroup {
            // SAFETY: the caller's descriptor is open until the child has left this closure by exec or exit.
            rustix::io::write(unsafe { BorrowedFd::borrow_raw(cgroup) }, b"0")?;
        }
        let score =
            rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        if let Ok(score) = score {
            let _ = rustix::io::write(score, OOM_SCORE);
        }
        let _ = setrlimit(Resource::Nofile, OPEN_FILES);
        set_thread_groups(&user.groups)?;
        set_thread_res_gid(user.gid, user.gid, user.gid)?;
        set_thread_res_uid(user.uid, user.uid, user.uid)?;
        rustix::process::chdir(&*cwd)?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only: all memory it uses was allocated before.
    unsafe { command.as_std_mut().pre_exec(enter) };
    command.spawn()
}
