//! State of the kernel that makes two VMs from one snapshot different, and what the agent asks for itself.

mod clock;
mod entropy;
mod identity_files;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use rustix::process::{Resource, Rlimit, setrlimit};

pub use clock::{Timestamp, set_clock};
pub use entropy::{add_entropy, random};
pub use identity_files::write_identity_files;

/// Values of oom_score_adj (proc_pid_oom_score_adj(5)).
const PROTECTED: &[u8] = b"-999";
const USUAL: &[u8] = b"0";
const EXPENDABLE: &[u8] = b"100";

/// So that idle connections cannot keep the host out.
pub fn allow_many_connections() {
    let limit = Rlimit { current: Some(65_536), maximum: Some(65_536) };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("thaw-envd: open files: {error}");
    }
}

/// The kernel derives its limits from the memory's size, which is too little for a small VM's source trees.
pub fn allow_many_watches() {
    for (name, at_least) in [("max_user_watches", 65_536), ("max_user_instances", 1024)] {
        let path = format!("/proc/sys/fs/inotify/{name}");
        let now = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        if now.is_some_and(|now| now < at_least)
            && let Err(error) = std::fs::write(&path, at_least.to_string())
        {
            eprintln!("thaw-envd: {name}: {error}");
        }
    }
}

/// The agent's own score and where it is written, held open: a path in /proc is much work for a first command after a
/// restore.
static OOM_SCORE: Mutex<Option<(File, &[u8])>> = Mutex::new(None);

/// Without the agent a VM that is short of memory could not even be looked at. In tests it has the usual score.
pub fn protect_from_oom(in_test: bool) {
    let own = if in_test { USUAL } else { PROTECTED };
    let opened = File::options().write(true).open("/proc/self/oom_score_adj");
    match opened.and_then(|file| file.write_all_at(own, 0).map(|()| file)) {
        Ok(file) => *OOM_SCORE.lock().unwrap() = Some((file, own)),
        Err(error) => eprintln!("thaw-envd: oom_score_adj: {error}"),
    }
}

/// Users' processes die before the agent: what `start` starts inherits that, and the agent is protected again.
pub fn expendable<T>(start: impl FnOnce() -> T) -> T {
    let held = OOM_SCORE.lock().unwrap();
    let write = |file: &File, score| {
        if let Err(error) = file.write_all_at(score, 0) {
            eprintln!("thaw-envd: oom_score_adj: {error}");
        }
    };
    if let Some((file, _)) = &*held {
        write(file, EXPENDABLE);
    }
    let started = start();
    if let Some((file, own)) = &*held {
        write(file, own);
    }
    started
}

/// A name of at most 64 characters that is fit for `/etc/hosts`.
pub fn is_hostname(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    !name.is_empty() && name.len() <= 64 && name.chars().all(letters) && !name.starts_with(['-', '.'])
}

/// machine-id(5): 32 hexadecimal digits in lower case.
pub fn is_machine_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}
