//! `dump`: writes the pages that differ from the last committed build. The VM stands still meanwhile.
//!
//! The pages found stay in the uncommitted set until a `commit` says that a build holds them; every dump
//! before that writes all of them again.

use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::io::Errno;
use serde::Deserialize;
use serde_json::{Value, json};
use thaw_control::{ControlError, Request};

use crate::diff::Diff;
use crate::memory::{SPANS_MAX, Span, read};
use crate::page_set::{PAGE_BYTES, PageSet, new_words};
use crate::pagemap::Found;
use crate::session::{Mode, Session, Tracker};
use crate::vmm::Vmm;

/// What is read before it is written on: small enough to stay in the processor's cache.
const BATCH_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
struct Dump {
    memfile: usize,
    runs: usize,
}

pub fn dump(session: &Session, mut request: Request) -> Result<Value, ControlError> {
    let body: Dump = request.body()?;
    let (memfile, runs) = (request.take_fd(body.memfile)?, request.take_fd(body.runs)?);
    session.dumped.store(false, Ordering::Release);
    let vmm = session.running_vmm()?;
    let started = Instant::now();
    session.settle();
    let found = new_words(session.pages());
    let zeroed = new_words(session.pages());
    let (found, zeroed) = (PageSet::new(&found), PageSet::new(&zeroed));
    let compare = find(session, vmm, found, zeroed)?;
    let scan_us = started.elapsed().as_micros() as u64;

    let copying = Instant::now();
    let source = session.source();
    let mut diff = Diff::packed(&source, session.pages(), memfile, compare);
    for pages in zeroed.runs() {
        diff.add_zero(pages);
    }
    let read_bytes = copy(session, vmm, found, &mut diff)?;
    let (stored_bytes, zero_bytes) = diff.finish(runs)?;
    session.dumped.store(true, Ordering::Release);
    Ok(told((stored_bytes, zero_bytes, read_bytes), scan_us, copying))
}

/// The answer to a request that seals: bytes stored, become zero and read.
pub fn told(bytes: (u64, u64, u64), scan_us: u64, copying: Instant) -> Value {
    let (stored_bytes, zero_bytes, read_bytes) = bytes;
    json!({
        "stored_bytes": stored_bytes,
        "zero_bytes": zero_bytes,
        "read_bytes": read_bytes,
        "scan_us": scan_us,
        "copy_us": copying.elapsed().as_micros() as u64,
    })
}

/// Fills `found` with the pages to read and `zeroed` with those that read as zero without being there.
/// True if the pages found must be compared with the last committed build.
fn find(session: &Session, vmm: &Vmm, found: PageSet<'_>, zeroed: PageSet<'_>) -> Result<bool, ControlError> {
    let mut compare = session.tracker() == Tracker::Compare;
    if !compare {
        match session.state.while_taking(|| take_written(session, vmm)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                session.set_tracker(Tracker::Compare);
                compare = true;
            }
            Err(error) => return Err(error.into()),
        }
    }
    present(session, vmm, found, zeroed)?;
    let wanted = session.state.uncommitted();
    if !compare {
        found.keep(wanted);
    }
    Ok(compare)
}

fn take_written(session: &Session, vmm: &Vmm) -> io::Result<()> {
    let regions = vmm.regions();
    let dirty = session.state.uncommitted();
    let pagemap = vmm.pagemap(session.peer_uid)?;
    for region in regions.iter() {
        pagemap.take_written(region.addresses(), session.mode == Mode::Mapped, |addresses| {
            regions.pages(addresses).for_each(|pages| dirty.insert(pages));
        })?;
    }
    Ok(())
}

/// `real` gets the pages that can be read without faulting, `zero` those that read as zero without being there.
pub fn present(session: &Session, vmm: &Vmm, real: PageSet<'_>, zero: PageSet<'_>) -> io::Result<()> {
    walk(session, vmm, |pages, found| {
        if !session.is_builds(found) {
            let set = if found.zero { zero } else { real };
            set.insert(pages);
        }
    })?;
    let removed = session.state.removed();
    for index in 0..real.words() {
        // A VM that booted has its missing pages filled with zeros by the kernel.
        let discarded = if session.mode == Mode::Boot { !0 } else { removed.word(index) };
        zero.set_word(index, (zero.word(index) | discarded) & !real.word(index));
    }
    zero.remove(session.pages()..real.words() as u64 * 64);
    Ok(())
}

/// Every run of pages that are there, in no order.
pub fn walk(session: &Session, vmm: &Vmm, mut each: impl FnMut(Range<u64>, &Found)) -> io::Result<()> {
    let regions = vmm.regions();
    let pagemap = vmm.pagemap(session.peer_uid)?;
    for region in regions.iter() {
        let each = |found: Found| {
            regions.pages(found.addresses.clone()).for_each(|pages| each(pages, &found));
        };
        match session.tracker() {
            Tracker::Scan => pagemap.present(region.addresses(), each)?,
            Tracker::Compare => pagemap.present_by_entries(region.addresses(), each)?,
        }
    }
    Ok(())
}

/// Reads the pages of `found` batch by batch into the diff. Returns the bytes read.
fn copy(session: &Session, vmm: &Vmm, found: PageSet<'_>, diff: &mut Diff<'_>) -> Result<u64, ControlError> {
    let regions = vmm.regions();
    let mut batch = Batch { bytes: vec![0; BATCH_BYTES], spans: Vec::new(), pages: Vec::new(), used: 0 };
    let mut read_bytes = 0;
    for mut run in found.runs() {
        while !run.is_empty() {
            let room = ((BATCH_BYTES - batch.used) as u64 / PAGE_BYTES).min(run.end - run.start);
            let part = run.start..run.start + room;
            run.start = part.end;
            batch.spans.extend(regions.spans(part.clone()));
            batch.used += (room * PAGE_BYTES) as usize;
            batch.pages.push(part);
            if batch.used == BATCH_BYTES || batch.spans.len() + regions.count() > SPANS_MAX {
                read_bytes += batch.flush(session, vmm, diff)?;
            }
        }
    }
    read_bytes += batch.flush(session, vmm, diff)?;
    // The reads went by process id: it is still the VMM's if the VMM still runs.
    session.running_vmm()?;
    Ok(read_bytes)
}

struct Batch {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    pages: Vec<Range<u64>>,
    used: usize,
}

impl Batch {
    fn flush(&mut self, session: &Session, vmm: &Vmm, diff: &mut Diff<'_>) -> io::Result<u64> {
        let bytes = &mut self.bytes[..self.used];
        read(vmm.process.pid, &self.spans, bytes)?;
        session.counters.read_frozen_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        diff.add(&self.pages, bytes)?;
        let read_bytes = bytes.len() as u64;
        self.spans.clear();
        self.pages.clear();
        self.used = 0;
        Ok(read_bytes)
    }
}
