//! `/metrics`: CPU, memory and disk of the VM.

use std::fs;
use std::time::SystemTime;

use hyper::{Response, StatusCode};
use serde_json::json;

use crate::agent::Agent;
use crate::body::{self, Body};

/// Ticks of all CPUs at the last request: `cpu_used_pct` covers the time since then.
#[derive(Default, Clone, Copy)]
pub struct Cpu {
    busy: u64,
    total: u64,
}

const MIB: u64 = 1 << 20;

pub fn answer(agent: &Agent) -> Response<Body> {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let now = cpu(&stat);
    let last = std::mem::replace(&mut *agent.cpu.lock().unwrap(), now);
    let (busy, total) = (now.busy.saturating_sub(last.busy), now.total.saturating_sub(last.total));
    let used_pct = if total == 0 { 0.0 } else { (busy as f64 * 10_000.0 / total as f64).round() / 100.0 };

    let total_bytes = memory(&meminfo, "MemTotal");
    let used_bytes = total_bytes.saturating_sub(memory(&meminfo, "MemAvailable"));
    let disk = rustix::fs::statvfs("/").ok();
    let disk_bytes =
        |blocks: fn(&rustix::fs::StatVfs) -> u64| disk.as_ref().map_or(0, |d| blocks(d) * d.f_frsize);
    let ts = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
    body::json(
        StatusCode::OK,
        &json!({
            "ts": ts,
            "cpu_count": stat.lines().filter(|line| is_one_cpu(line)).count(),
            "cpu_used_pct": used_pct,
            "mem_total": total_bytes,
            "mem_used": used_bytes,
            "mem_cache": memory(&meminfo, "Cached"),
            "mem_total_mib": total_bytes / MIB,
            "mem_used_mib": used_bytes / MIB,
            "disk_used": disk_bytes(|d| d.f_blocks - d.f_bfree),
            "disk_total": disk_bytes(|d| d.f_blocks),
        }),
    )
}

fn is_one_cpu(line: &str) -> bool {
    line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The `cpu` line of proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal. Guest time is in user.
fn cpu(stat: &str) -> Cpu {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
    let total = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Cpu { busy: total - idle, total }
}

/// A field of proc_meminfo(5), in bytes.
fn memory(meminfo: &str, field: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
