//! What the fault thread is at, for others to know when everything it has read is dealt with.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::thread::{Pid, gettid};

/// The fault thread waits in the very call that reads events. So an event may be read while nothing here says so yet;
/// a thread that sleeps has read none.
#[derive(Default)]
pub struct Rounds {
    /// Odd while events are dealt with.
    count: AtomicU64,
    thread: OnceLock<Pid>,
}

impl Rounds {
    /// This thread is the one that reads events. To be called before it does.
    pub fn open(&self) {
        let _ = self.thread.set(gettid());
    }

    /// Events were read.
    pub fn begin(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// They are dealt with.
    pub fn end(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until every event that was read before this call is dealt with.
    pub fn settle(&self) {
        let Some(thread) = self.thread.get() else { return };
        let seen = self.count.load(Ordering::SeqCst);
        // The round that is on; or, if none is, the next one.
        let is_on = !seen.is_multiple_of(2);
        let over = seen + if is_on { 1 } else { 2 };
        while self.count.load(Ordering::SeqCst) < over {
            if !is_on && is_asleep(*thread) && self.count.load(Ordering::SeqCst) == seen {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// Whether a thread of this process waits for something other than a processor or memory.
fn is_asleep(thread: Pid) -> bool {
    // The third field, after a name that may hold anything.
    std::fs::read_to_string(format!("/proc/self/task/{}/stat", thread.as_raw_nonzero()))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_that_sleeps_has_nothing_to_deal_with() {
        let rounds = Rounds::default();
        rounds.settle();
        let ((wake, woken), (tell, told)) = (channel(), channel());
        std::thread::scope(|scope| {
            let rounds = &rounds;
            scope.spawn(move || {
                rounds.open();
                tell.send(()).unwrap();
                woken.recv().unwrap();
                rounds.begin();
                tell.send(()).unwrap();
                // Asleep, but in the middle of a round.
                std::thread::sleep(Duration::from_millis(50));
                rounds.end();
            });
            told.recv().unwrap();
            rounds.settle();
            wake.send(()).unwrap();
            told.recv().unwrap();
            rounds.settle();
            assert_eq!(rounds.count.load(Ordering::SeqCst), 2);
        });
    }
}
