//! How long faults took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// Upper bounds of the buckets in microseconds; one more bucket takes what is longer.
const BOUNDS_US: [u64; 36] = [
    1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 192, 256, 384,
    512, 768, 1024, 2048, 4096, 16384, 65536, 262_144, 1_048_576,
];

pub struct Latency {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    max_ns: AtomicU64,
}

impl Latency {
    pub fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BOUNDS_US.len() + 1], max_ns: AtomicU64::new(0) }
    }

    pub fn record(&self, took: Duration) {
        let ns = took.as_nanos() as u64;
        let bucket = BOUNDS_US.partition_point(|bound| bound * 1000 < ns);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }

    /// Percentiles as the upper bound of their bucket, never above the exact maximum; buckets that hold anything.
    pub fn to_json(&self) -> Value {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let max_us = self.max_ns.load(Ordering::Relaxed) as f64 / 1000.0;
        let bound = |bucket: usize| BOUNDS_US.get(bucket).map_or(max_us, |us| *us as f64);
        let percentile = |percent: u64| {
            let rank = (total * percent).div_ceil(100);
            let mut seen = 0;
            let bucket = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            bucket.map_or(0.0, |bucket| bound(bucket).min(max_us))
        };
        let buckets: Vec<Value> = counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bucket, count)| json!([bound(bucket), count]))
            .collect();
        json!({
            "p50": percentile(50),
            "p90": percentile(90),
            "p99": percentile(99),
            "max": max_us,
            "buckets": buckets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_bucket_bounds() {
        let latency = Latency::new();
        assert_eq!(latency.to_json()["p99"], 0.0);
        for us in 1..=100 {
            latency.record(Duration::from_micros(us));
        }
        latency.record(Duration::from_secs(2));
        let json = latency.to_json();
        assert_eq!(json["p50"], 56.0);
        assert_eq!(json["p90"], 96.0);
        assert_eq!(json["max"], 2_000_000.0);
        assert_eq!(json["buckets"][0], json!([1.0, 1]));
    }
}
