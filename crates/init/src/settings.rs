//! Kernel settings, host name and limits that every process of the sandbox starts with.

use std::fs;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::system::sethostname;

use crate::failure::{Context, Failure};

/// `/proc/sys` entries. Watches and instances: file watchers of editors and dev servers; ping without privileges.
/// Sockets of Multipath TCP cannot be reached on loopback from outside; programs that would like them take TCP.
/// The last two are for guests that wake up often: no memory is moved around in the background where nothing wants large
/// pages, and what was learned of a network that is another one now is not kept.
const SYSCTLS: &[(&str, &str)] = &[
    ("fs/inotify/max_user_watches", "524288"),
    ("fs/inotify/max_user_instances", "1024"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/mptcp/enabled", "0"),
    ("vm/compaction_proactiveness", "0"),
    ("net/ipv4/tcp_no_metrics_save", "1"),
];

/// Programs that need many files raise the soft limit themselves; a high one slows those that close them all.
const OPEN_FILES: Rlimit = Rlimit { current: Some(1024), maximum: Some(524_288) };

/// The host shares its disk among guests; one that also holds its own writes back has a timer for it running when it wakes up.
/// Not every kernel has it.
const WRITEBACK_THROTTLING: &str = "/sys/block/vda/queue/wbt_lat_usec";

const HOSTNAME_DEFAULT: &str = "thaw";

pub fn apply() -> Result<(), Failure> {
    for (name, value) in SYSCTLS {
        let path = format!("/proc/sys/{name}");
        fs::write(&path, value).context(&path)?;
    }
    let _ = fs::write(WRITEBACK_THROTTLING, "0");
    let hostname = fs::read_to_string("/etc/hostname").unwrap_or_default();
    let hostname = match hostname.trim() {
        "" => HOSTNAME_DEFAULT,
        name => name,
    };
    sethostname(hostname.as_bytes()).context("set the host name")?;
    setrlimit(Resource::Nofile, OPEN_FILES).context("limit open files")
}
