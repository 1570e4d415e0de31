//! `pre_dump`: copies the pages written so far while the VM still runs, so that it need not stand still for them. Each is
//! protected before it is read: one that is written meanwhile, or later, has its mark again, and the dump that follows
//! copies it once more, over the first copy. All of them stay in the uncommitted set as well.

use std::sync::atomic::AtomicU64;

use serde::Deserialize;
use serde_json::{Value, json};
use thaw_control::{ControlError, Request};

use crate::diff::Diff;
use crate::dump::{copy, take};
use crate::page_set::{PAGE_BYTES, PageSet, new_words};
use crate::session::{Session, lock};

/// What was copied, and where to.
pub struct PreDump {
    diff: Diff,
    copied: Box<[AtomicU64]>,
}

impl PreDump {
    pub fn copied(&self) -> PageSet<'_> {
        PageSet::new(&self.copied)
    }

    pub fn into_diff(self) -> Diff {
        self.diff
    }
}

#[derive(Deserialize)]
struct Body {
    memfile: usize,
    /// Less than this is left to the dump.
    worth_bytes: u64,
    /// So is more than this.
    room_bytes: u64,
}

/// Answers the bytes read; null if all is left to the dump, and the file is empty.
pub fn pre_dump(session: &Session, mut request: Request) -> Result<Value, ControlError> {
    let body: Body = request.body()?;
    let memfile = request.take_fd(body.memfile)?;
    *lock(&session.pre_dumped) = None;
    let vmm = session.running_vmm()?;
    let copied = new_words(session.pages());
    let taken = PageSet::new(&copied);
    let worth = body.worth_bytes..=body.room_bytes;
    if !take(session, vmm, taken)? || !worth.contains(&(taken.count() * PAGE_BYTES)) {
        return Ok(json!({"read_bytes": null}));
    }
    let mut diff =
        Diff::sparse(session.source(), session.pages(), memfile).doubting(session.assumed_written());
    let read_bytes = copy(session, vmm, taken, &mut diff)?;
    *lock(&session.pre_dumped) = Some(PreDump { diff, copied });
    Ok(json!({"read_bytes": read_bytes}))
}
