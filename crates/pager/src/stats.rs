//! `stats`: what was served so far.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use thaw_control::ControlError;
use thaw_snapshot::format_build_id;

use crate::dump;
use crate::page_set::PAGE_BYTES;
use crate::session::{Mode, Session, Tracker, lock};

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
        "pre_dumps": true,
        "backend": if session.mode == Mode::Mapped { "mapped" } else { "uffd" },
        "resident_bytes": resident_bytes(session)?,
    }))
}

/// Bytes of the VM's memory that are present or swapped out, and its own; 0 before the handshake and after the VMM's end.
fn resident_bytes(session: &Session) -> Result<u64, ControlError> {
    let Ok(vmm) = session.running_vmm() else { return Ok(0) };
    if vmm.pagemap(session.peer_uid).is_err() {
        return Ok(0);
    }
    let mut resident = 0;
    dump::walk_all(session, vmm, |pages, found| {
        if !found.zero && !session.is_builds(found) {
            resident += pages.end - pages.start;
        }
    })?;
    Ok(resident * PAGE_BYTES)
}

impl Tracker {
    pub fn name(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Compare => "compare",
        }
    }
}
