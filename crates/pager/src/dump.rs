//! `dump`: writes the pages that differ from the last committed build. The VM stands still meanwhile.
//!
//! The pages found stay in the uncommitted set until a `commit` says that a build holds them; every dump
//! before that writes all of them again. What a `pre_dump` has copied and nobody has touched since is left out.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::io::Errno;
use serde::Deserialize;
use serde_json::{Value, json};
use thaw_control::{ControlError, Request};

use crate::diff::Diff;
use crate::memory::{SPANS_MAX, Span, read};
use crate::page_set::{PAGE_BYTES, PageSet, new_words};
use crate::pagemap::Found;
use crate::session::{Mode, Session, Tracker, lock};
use crate::vmm::Vmm;

/// What is read before it is written on: small enough to stay in the processor's cache.
const BATCH_BYTES: usize = 1 << 20;
/// A walk asks for whole blocks of so many pages: what one page table holds.
const WALK_PAGES: u64 = 512;

#[derive(Deserialize)]
struct Dump {
    /// Absent: the file of the pre-dump.
    memfile: Option<usize>,
    runs: usize,
}

pub fn dump(session: &Session, mut request: Request) -> Result<Value, ControlError> {
    let body: Dump = request.body()?;
    let memfile = body.memfile.map(|index| request.take_fd(index)).transpose()?;
    let runs = request.take_fd(body.runs)?;
    let before = lock(&session.pre_dumped).take();
    if memfile.is_none() && before.is_none() {
        return Err(ControlError::new("invalid_state", "nothing was dumped ahead"));
    }
    session.dumped.store(false, Ordering::Release);
    let vmm = session.running_vmm()?;
    let started = Instant::now();
    session.settle();
    let sets: [_; 4] = std::array::from_fn(|_| new_words(session.pages()));
    let [taken, found, zeroed, copied] = sets.each_ref().map(|words| PageSet::new(words));
    if let Some(before) = before.as_ref().filter(|_| memfile.is_none()) {
        copied.add(before.copied());
    }
    let compare = find(session, vmm, Finds { taken, found, zeroed, copied })?;
    let scan_us = started.elapsed().as_micros() as u64;

    let copying = Instant::now();
    let mut diff = match (memfile, before) {
        (Some(memfile), _) => Diff::packed(session.source(), session.pages(), memfile, compare),
        (None, Some(before)) => before.into_diff().comparing(compare),
        (None, None) => unreachable!("refused above"),
    }
    .doubting(session.assumed_written());
    // What was copied and neither written again nor discarded since is as it was.
    copied.subtract(taken);
    copied.keep(found);
    diff.keep_only(copied);
    found.subtract(copied);
    for pages in zeroed.runs() {
        diff.add_zero(pages);
    }
    let read_bytes = copy(session, vmm, found, &mut diff)?;
    session.counters.read_frozen_bytes.fetch_add(read_bytes, Ordering::Relaxed);
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

/// What `find` fills, but for `copied`.
struct Finds<'a> {
    /// Written since they were last protected.
    taken: PageSet<'a>,
    /// To be stored, or compared.
    found: PageSet<'a>,
    /// They read as zero without being there.
    zeroed: PageSet<'a>,
    /// Copied before, when they were there.
    copied: PageSet<'a>,
}

/// True if the pages found must be compared with the last committed build.
fn find(session: &Session, vmm: &Vmm, finds: Finds<'_>) -> Result<bool, ControlError> {
    let Finds { taken, found, zeroed, copied } = finds;
    if !take(session, vmm, taken)? {
        copied.clear();
        present(session, vmm, found, zeroed)?;
        return Ok(true);
    }
    let uncommitted = session.state.uncommitted();
    let asked = new_words(session.pages());
    let asked = PageSet::new(&asked);
    match session.mode {
        // Nobody tells what such a VM discards.
        Mode::Boot => asked.insert(0..session.pages()),
        // What was there a moment ago still is, unless it was discarded at some time.
        Mode::Restore | Mode::Mapped => {
            asked.add(uncommitted);
            asked.subtract(copied);
            asked.add(session.state.removed());
            asked.subtract(taken);
        }
    }
    among(session, vmm, asked, found, zeroed)?;
    found.keep(uncommitted);
    let still = new_words(session.pages());
    let still = PageSet::new(&still);
    still.add(copied);
    still.subtract(asked);
    found.add(still);
    found.add(taken);
    Ok(false)
}

/// Moves the kernel's write marks into the uncommitted set and into `taken`. False if there are none: from then on pages
/// are compared.
pub fn take(session: &Session, vmm: &Vmm, taken: PageSet<'_>) -> Result<bool, ControlError> {
    if session.tracker() == Tracker::Compare {
        return Ok(false);
    }
    match session.state.while_taking(|| take_written(session, vmm, taken)) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
            session.set_tracker(Tracker::Compare);
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn take_written(session: &Session, vmm: &Vmm, taken: PageSet<'_>) -> io::Result<()> {
    let regions = vmm.regions();
    let dirty = session.state.uncommitted();
    let pagemap = vmm.pagemap(session.peer_uid)?;
    for region in regions.iter() {
        pagemap.take_written(region.addresses(), session.mode == Mode::Mapped, |addresses| {
            for pages in regions.pages(addresses) {
                dirty.insert(pages.clone());
                taken.insert(pages);
            }
        })?;
    }
    Ok(())
}

/// `real` gets the pages that can be read without faulting, `zero` those that read as zero without being there.
pub fn present(session: &Session, vmm: &Vmm, real: PageSet<'_>, zero: PageSet<'_>) -> io::Result<()> {
    let words = all(session);
    among(session, vmm, PageSet::new(&words), real, zero)
}

fn all(session: &Session) -> Box<[AtomicU64]> {
    let words = new_words(session.pages());
    PageSet::new(&words).insert(0..session.pages());
    words
}

/// As `present`, of the pages `asked` for.
fn among(
    session: &Session,
    vmm: &Vmm,
    asked: PageSet<'_>,
    real: PageSet<'_>,
    zero: PageSet<'_>,
) -> io::Result<()> {
    walk(session, vmm, asked, |pages, found| {
        if !session.is_builds(found) {
            let set = if found.zero { zero } else { real };
            set.insert(pages);
        }
    })?;
    let removed = session.state.removed();
    for index in 0..real.words() {
        // A VM that booted has its missing pages filled with zeros by the kernel.
        let discarded = if session.mode == Mode::Boot { !0 } else { removed.word(index) };
        let reads_zero = (zero.word(index) | discarded) & !real.word(index);
        zero.set_word(index, reads_zero & asked.word(index));
        real.set_word(index, real.word(index) & asked.word(index));
    }
    Ok(())
}

/// Every run of pages that are there, in no order.
pub fn walk_all(session: &Session, vmm: &Vmm, each: impl FnMut(Range<u64>, &Found)) -> io::Result<()> {
    let words = all(session);
    walk(session, vmm, PageSet::new(&words), each)
}

/// Runs of pages that are there, in no order: all of those in `asked`, and others near them.
fn walk(
    session: &Session,
    vmm: &Vmm,
    asked: PageSet<'_>,
    mut each: impl FnMut(Range<u64>, &Found),
) -> io::Result<()> {
    let regions = vmm.regions();
    let pagemap = vmm.pagemap(session.peer_uid)?;
    for pages in asked.blocks(WALK_PAGES) {
        for span in regions.spans(pages.start..pages.end.min(session.pages())) {
            let each = |found: Found| {
                regions.pages(found.addresses.clone()).for_each(|pages| each(pages, &found));
            };
            let addresses = span.address..span.address + span.length;
            match session.tracker() {
                Tracker::Scan => pagemap.present(addresses, session.mode == Mode::Mapped, each)?,
                Tracker::Compare => pagemap.present_by_entries(addresses, each)?,
            }
        }
    }
    Ok(())
}

/// Reads the pages of `found` batch by batch into the diff. Returns the bytes read.
pub fn copy(session: &Session, vmm: &Vmm, found: PageSet<'_>, diff: &mut Diff) -> Result<u64, ControlError> {
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
                read_bytes += batch.flush(vmm, diff)?;
            }
        }
    }
    read_bytes += batch.flush(vmm, diff)?;
    session.check_memory(vmm)?;
    Ok(read_bytes)
}

struct Batch {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    pages: Vec<Range<u64>>,
    used: usize,
}

impl Batch {
    fn flush(&mut self, vmm: &Vmm, diff: &mut Diff) -> io::Result<u64> {
        let bytes = &mut self.bytes[..self.used];
        read(vmm.process.pid, &self.spans, bytes)?;
        diff.add(&self.pages, bytes)?;
        let read_bytes = bytes.len() as u64;
        self.spans.clear();
        self.pages.clear();
        self.used = 0;
        Ok(read_bytes)
    }
}
