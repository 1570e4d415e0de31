//! The rate of the time stamp counter, against CLOCK_MONOTONIC_RAW (which no time daemon bends).

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::sys::read_counter;

const SPAN: Duration = Duration::from_millis(60);
const READS: usize = 16;

/// Kilohertz, good to a few parts per million.
pub fn measure_khz() -> u64 {
    let (ticks_start, ns_start) = closest_pair();
    std::thread::sleep(SPAN);
    let (ticks_end, ns_end) = closest_pair();
    let ticks = u128::from(ticks_end - ticks_start);
    let ns = u128::from(ns_end - ns_start);
    u64::try_from((ticks * 1_000_000 + ns / 2) / ns).unwrap_or(0)
}

/// A counter value and the nanoseconds it was read at. Of several reads the one that the scheduler disturbed
/// least (the shortest) wins.
fn closest_pair() -> (u64, u64) {
    let mut best = (0, 0);
    let mut shortest = u64::MAX;
    for _ in 0..READS {
        let before = read_counter();
        let now = clock_gettime(ClockId::MonotonicRaw);
        let after = read_counter();
        if after - before < shortest {
            shortest = after - before;
            let ns = now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned();
            best = (before + (after - before) / 2, ns);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_measurements_agree() {
        let (first, second) = (super::measure_khz(), super::measure_khz());
        assert!(first > 100_000, "{first} kHz");
        assert!(first.abs_diff(second) * 1000 < first, "{first} and {second} kHz");
    }
}
