//! On which processor a thread goes on. One that is made or woken may be left behind another one for milliseconds, also
//! when a second processor becomes idle just then.

use rustix::process::Pid;
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// A thread and the processors that it may use.
pub struct Thread {
    id: Pid,
    cpus: CpuSet,
}

impl Thread {
    /// The calling one. `None` where the kernel does not tell.
    pub fn this() -> Option<Self> {
        Some(Self { id: gettid(), cpus: sched_getaffinity(None).ok()? })
    }

    /// Has it go on, while it waits, on another processor than the caller's, if there is one.
    pub fn move_away(&self) {
        let mut others = self.cpus;
        others.unset(sched_getcpu());
        self.limit(&others);
    }

    /// It may use all of them again.
    pub fn release(&self) {
        self.limit(&self.cpus);
    }

    /// What is refused stays as it is.
    fn limit(&self, cpus: &CpuSet) {
        let _ = sched_setaffinity(Some(self.id), cpus);
    }
}
