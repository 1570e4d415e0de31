//! Waiting for another thread that is nearly done.

use std::thread::{sleep, yield_now};
use std::time::Duration;

/// Longer than the other thread needs where it has a processor: some tenths of a millisecond.
const YIELDS: u32 = 1000;
const SLEEP: Duration = Duration::from_micros(50);

/// Yields at first. A thread that only yields keeps its processor busy, and the kernel moves a thread that waits for one
/// to those that are idle: so it sleeps after a while.
#[derive(Default)]
pub struct Patience {
    waits: u32,
}

impl Patience {
    pub fn wait(&mut self) {
        self.waits += 1;
        if self.waits <= YIELDS { yield_now() } else { sleep(SLEEP) }
    }
}
