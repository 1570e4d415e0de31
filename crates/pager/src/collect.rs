//! `collect`: makes a diff of a file that the VMM has written. It holds the pages changed since the VMM wrote the last
//! one, each at its own offset, in a file as large as the memory; holes are pages that did not change.
//!
//! Writing it makes the VMM forget what had changed. So until a commit the file is kept, the VMM writes the next
//! changes over it, and the uncommitted set remembers which of its pages became zero: those are holes by then.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use serde::Deserialize;
use serde_json::Value;
use thaw_control::{ControlError, Request};

use crate::diff::{Diff, punch};
use crate::dump::{present, told};
use crate::memory::{self, Span};
use crate::page;
use crate::page_set::{PAGE_BYTES, PageSet, new_words};
use crate::session::{Session, Tracker};
use crate::vmm::Vmm;

const BATCH_PAGES: u64 = 256;

#[derive(Deserialize)]
struct Collect {
    /// Readable and writable.
    diff: usize,
    runs: usize,
    /// The file is the one that was collected last, written on.
    kept: bool,
}

pub fn collect(session: &Session, mut request: Request) -> Result<Value, ControlError> {
    let body: Collect = request.body()?;
    let file = File::from(request.take_fd(body.diff)?);
    let runs = request.take_fd(body.runs)?;
    let size = file.metadata()?.len();
    if size != session.memory_bytes {
        return Err(ControlError::invalid(format!("a diff of {size} bytes")));
    }
    if !body.kept && session.state.uncommitted().count() > 0 {
        return Err(ControlError::new("invalid_state", "the changes of an earlier diff are missing"));
    }
    session.dumped.store(false, Ordering::Release);
    let started = Instant::now();
    let (held, written, zeroed) =
        (new_words(session.pages()), new_words(session.pages()), new_words(session.pages()));
    let (held, written, zeroed) = (PageSet::new(&held), PageSet::new(&written), PageSet::new(&zeroed));
    find_data(&file, held)?;
    find_zeroed(session, held, zeroed)?;
    written.add(held);
    written.subtract(zeroed);
    session.state.uncommitted().add(held);
    let scan_us = started.elapsed().as_micros() as u64;

    let reading = Instant::now();
    let mut diff = Diff::kept(session.source(), session.pages());
    for pages in zeroed.runs() {
        diff.add_zero(pages);
    }
    let read_bytes = read(&file, written, &mut diff)?;
    zeroed.add(diff.blank());
    held.keep(zeroed);
    for pages in held.runs() {
        punch(&file, pages)?;
    }
    let (stored_bytes, zero_bytes) = diff.finish(runs)?;
    session.counters.read_frozen_bytes.fetch_add(read_bytes, Ordering::Relaxed);
    session.dumped.store(true, Ordering::Release);
    Ok(told((stored_bytes, zero_bytes, read_bytes), scan_us, reading))
}

/// The pages that the file has blocks for.
fn find_data(file: &File, held: PageSet<'_>) -> io::Result<()> {
    let mut at = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        at = seek(file, SeekFrom::Hole(start))?;
        held.insert(start / PAGE_BYTES..at.div_ceil(PAGE_BYTES));
    }
}

/// Pages that read as zero, whatever the file holds: those that the VM discarded, of which the VMM tells nothing, and
/// those that an earlier diff found to be.
fn find_zeroed(session: &Session, held: PageSet<'_>, zeroed: PageSet<'_>) -> Result<(), ControlError> {
    zeroed.add(session.state.uncommitted());
    zeroed.subtract(held);
    session.settle();
    // Without a handshake nobody tells of discards, nor where the memory is.
    if session.vmm.get().is_some() {
        let (there, missing) = (new_words(session.pages()), new_words(session.pages()));
        let (there, missing) = (PageSet::new(&there), PageSet::new(&missing));
        let vmm = session.running_vmm()?;
        present(session, vmm, there, missing)?;
        zeroed.add(missing);
        if session.tracker() == Tracker::Compare {
            // Such a kernel does not tell which pages are its zero page: discarded, and then only read.
            there.keep(session.state.removed());
            find_blank(vmm, there, zeroed)?;
        }
        session.check_memory(vmm)?;
    }
    Ok(())
}

/// Adds to `zeroed` which of the pages `there` hold nothing but zeros.
fn find_blank(vmm: &Vmm, there: PageSet<'_>, zeroed: PageSet<'_>) -> io::Result<()> {
    let regions = vmm.regions();
    let mut bytes = vec![0; PAGE_BYTES as usize];
    for page in there.runs().flatten() {
        let spans: Vec<Span> = regions.spans(page..page + 1).collect();
        memory::read(vmm.process.pid, &spans, &mut bytes)?;
        if page::is_zero(&bytes) {
            zeroed.insert(page..page + 1);
        }
    }
    Ok(())
}

fn read(file: &File, written: PageSet<'_>, diff: &mut Diff) -> io::Result<u64> {
    let mut bytes = vec![0; (BATCH_PAGES * PAGE_BYTES) as usize];
    let mut read_bytes = 0;
    for mut run in written.runs() {
        while !run.is_empty() {
            let part = run.start..run.end.min(run.start + BATCH_PAGES);
            run.start = part.end;
            let batch = &mut bytes[..((part.end - part.start) * PAGE_BYTES) as usize];
            file.read_exact_at(batch, part.start * PAGE_BYTES)?;
            read_bytes += batch.len() as u64;
            diff.add(&[part], batch)?;
        }
    }
    Ok(read_bytes)
}
