//! The pager's process, under the user and capability it has in production, and its keeper's end of the channel.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use thaw_control::{CHILD_FD, Channel, Message};

/// Nobody's uid on a test machine.
const PAGER_UID: &str = "699999";
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Pager {
    child: Child,
    channel: Option<Channel>,
    events: VecDeque<Message>,
    next_id: u64,
}

impl Pager {
    /// `dir` must be reachable by any user.
    pub fn spawn(dir: &Path) -> Self {
        let program = dir.join("thaw-pager");
        // A copy by this process could be inherited, open for writing, by what another test starts just then.
        let mut install = Command::new("install");
        install.args(["-m", "755", env!("CARGO_BIN_EXE_thaw-pager")]).arg(&program);
        assert!(install.status().unwrap().success());
        let (ours, theirs) = Channel::pair().unwrap();
        let fd = theirs.as_fd().as_raw_fd();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", PAGER_UID, "--regid", PAGER_UID, "--clear-groups", "--no-new-privs"])
            .args(["--inh-caps=-all,+sys_ptrace", "--ambient-caps=-all,+sys_ptrace"])
            .args(["--bounding-set=-all,+sys_ptrace", "--pdeathsig", "KILL"])
            .arg(&program);
        // SAFETY: dup2 may be called between fork and exec; `fd` stays open in the child until exec.
        unsafe {
            command.pre_exec(move || {
                if libc::dup2(fd, CHILD_FD) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                if fd == CHILD_FD {
                    libc::fcntl(fd, libc::F_SETFD, 0);
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        drop(theirs);
        Self { child, channel: Some(ours), events: VecDeque::new(), next_id: 1 }
    }

    /// The result of a request, or its error as `{kind, message}`.
    pub fn ask(&mut self, mut request: Value, fds: &[BorrowedFd<'_>]) -> Result<Value, Value> {
        let id = self.next_id;
        self.next_id += 1;
        request["id"] = json!(id);
        self.channel.as_ref().unwrap().send(&request, fds).unwrap();
        loop {
            let message = self.receive();
            if message.json["id"] == json!(id) {
                let body = message.json;
                return if body["ok"] == json!(true) {
                    Ok(body["result"].clone())
                } else {
                    Err(body["error"].clone())
                };
            }
            self.events.push_back(message);
        }
    }

    /// The next event of a kind; others stay.
    pub fn event(&mut self, name: &str) -> Message {
        loop {
            if let Some(at) = self.events.iter().position(|message| message.json["event"] == json!(name)) {
                return self.events.remove(at).unwrap();
            }
            let message = self.receive();
            self.events.push_back(message);
        }
    }

    /// The reason of the next `failed` event.
    pub fn failure(&mut self) -> String {
        self.event("failed").json["reason"].as_str().unwrap().to_owned()
    }

    /// Waits for the handshake of `pid` and gives the pager what the keeper does then.
    pub fn shake_hands(&mut self, pid: u32) -> Message {
        let event = self.event("handshake");
        let pagemap = File::open(format!("/proc/{pid}/pagemap")).unwrap();
        let clear_refs = File::options().write(true).open(format!("/proc/{pid}/clear_refs")).unwrap();
        let request = json!({"op": "pagemap", "pagemap": 0, "clear_refs": 1});
        self.ask(request, &[pagemap.as_fd(), clear_refs.as_fd()]).unwrap();
        event
    }

    pub fn stats(&mut self) -> Value {
        self.ask(json!({"op": "stats"}), &[]).unwrap()
    }

    /// Closes the channel: the pager must leave by itself.
    pub fn close(mut self) {
        self.channel = None;
        assert!(self.child.wait().unwrap().success());
    }

    /// As a crash does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn receive(&self) -> Message {
        let channel = self.channel.as_ref().unwrap();
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let mut polled = [PollFd::new(channel, PollFlags::IN)];
        assert_ne!(poll(&mut polled, Some(&patience)).unwrap(), 0, "the pager says nothing");
        channel.recv().unwrap().expect("the pager ended")
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}
