//! `stats`: what was served so far.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use thaw_control::ControlError;
use thaw_snapshot::format_build_id;

use crate::page_set::PAGE_BYTES;
use crate::session::{Session, Tracker, lock};

pub fn stats(session: &Session) -> Result<Value, ControlError> {
    session.settle();
    let counters = &session.counters;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let bytes_by_build: Map<String, Value> = lock(&session.bytes_by_build)
        .iter()
        .map(|(id, bytes)| (format_build_id(id), json!(count(bytes))))
        .collect();
    Ok(json!({
        "faults": count(&counters.faults),
        "pages_faulted": count(&counters.pages_faulted),
        "pages_ahead": count(&counters.pages_ahead),
        "untouched_bytes": session.untouched_bytes(),
        "bytes_copied": count(&counters.bytes_copied),
        "bytes_zeroed": count(&counters.bytes_zeroed),
        "bytes_by_build": bytes_by_build,
        "latency_us": counters.latency.to_json(),
        "removed_pages": session.state.removed().count(),
        "read_frozen_bytes": count(&counters.read_frozen_bytes),
        "tracker": session.tracker().name(),
        "resident_bytes": resident_bytes(session)?,
    }))
}

/// Bytes of the VM's memory that are present or swapped out; 0 before the handshake and after the VMM's end.
fn resident_bytes(session: &Session) -> Result<u64, ControlError> {
    let Ok(vmm) = session.running_vmm() else { return Ok(0) };
    let Ok(pagemap) = vmm.pagemap(session.peer_uid) else { return Ok(0) };
    let mut bytes = 0;
    for region in vmm.regions().iter() {
        let each = |found: crate::pagemap::Found| {
            if !found.zero {
                bytes += found.addresses.end - found.addresses.start;
            }
        };
        match session.tracker() {
            Tracker::Scan => pagemap.present(region.addresses(), each)?,
            Tracker::Compare => pagemap.present_by_entries(region.addresses(), each)?,
        }
    }
    debug_assert!(bytes.is_multiple_of(PAGE_BYTES));
    Ok(bytes)
}

impl Tracker {
    pub fn name(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Compare => "compare",
        }
    }
}
