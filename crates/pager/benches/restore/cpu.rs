//! Which processor runs what.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Limits a thread (this one without an id) to these processors.
pub fn pin(thread: Option<Pid>, cpus: &[usize]) {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    sched_setaffinity(thread, &set).unwrap();
}

/// Limits every thread of a process.
pub fn pin_process(pid: u32, cpus: &[usize]) {
    for entry in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let name = entry.unwrap().file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        pin(thread, cpus);
    }
}

/// The processors that this process may use.
pub fn all() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}
