//! The guest's thread.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::kernel::Kernel;
use super::network::Network;
use super::{Switch, Wiring};

const TICK: Duration = Duration::from_millis(10);
/// From the start until drivers have found their devices, in ticks.
const DRIVERS_UP_TICKS: u64 = 5;

/// Runs for as long as the process lives.
pub fn run(switch: &Switch, wiring: Wiring) {
    let mut network = wiring.network.map(|(tap, mac)| Network::new(tap, mac));
    let mut kernel =
        Kernel::new(wiring.memory, wiring.root, wiring.serial, wiring.faults, wiring.clock_lag_ms);
    loop {
        switch.stand_still();
        kernel.go_on();
        let mut tick_at = Instant::now();
        let mut network_at = Some(tick_at);
        while switch.is_running() {
            if switch.reset.load(Ordering::Relaxed) {
                kernel.reset();
            }
            let now = Instant::now();
            if now >= tick_at {
                tick_at = now + TICK;
                if kernel.tick() >= DRIVERS_UP_TICKS {
                    switch.drivers_up.store(true, Ordering::Relaxed);
                }
            }
            let silent = kernel.faults.now().silent_tap;
            let mut network = network.as_mut().filter(|_| !silent);
            if let Some(network) = network.as_mut().filter(|_| network_at.is_some_and(|at| at <= now)) {
                network_at = network.turn(&mut kernel);
            }
            let wake_at = network_at.filter(|_| !silent).map_or(tick_at, |at| at.min(tick_at));
            if wait(switch, network.as_deref(), wake_at) {
                network_at = Some(now);
            }
        }
    }
}

/// Until a frame comes, the VMM wants something, or it is time. True: a frame came.
fn wait(switch: &Switch, network: Option<&Network>, until: Instant) -> bool {
    let rest = until.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
    let mut polled = vec![PollFd::new(&switch.wake, PollFlags::IN)];
    polled.extend(network.map(|network| PollFd::from_borrowed_fd(network.as_fd(), PollFlags::IN)));
    let _ = poll(&mut polled, Some(&timeout));
    let came = |at: usize| polled.get(at).is_some_and(|fd| !fd.revents().is_empty());
    if came(0) {
        switch.take_wake();
    }
    came(1)
}
