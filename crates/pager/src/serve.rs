//! Serves page faults. One thread, and no allocation per fault:
//!
//! 1. sleep until the VMM faults, ends, or somebody else connects;
//! 2. read all waiting events. The kernel hands out faults before a discard that happened earlier, and refuses to
//!    install anything while a discard is unread: so discards are applied first, then the faults answered;
//! 3. for each fault the page itself, then its neighbours within an aligned window, as far as they come from the
//!    same place. A page that is there already stays: the kernel says so;
//! 4. faults that the kernel refused meanwhile wait for the next round;
//! 5. while nothing waits, pages of the recorded working set, a few at a time.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::handshake::{accept, await_vmm};
use crate::page_set::{PAGE_BYTES, PageSet, new_words};
use crate::regions::{Region, Regions};
use crate::session::{Mode, Session, Tracker, lock};
use crate::source::{Piece, Source};
use crate::uffd::{Event, EventBuffer, Install};
use crate::vmm::Vmm;

/// Larger windows bring many times more bytes than the guest uses, smaller ones more faults.
const WINDOW_PAGES: u64 = 16;
/// So many pages are installed ahead at once: a fault waits for no more than these.
const AHEAD_PAGES: u64 = 64;
/// At most one fault waits per thread of the VMM.
const FAULTS_MAX: usize = 4096;
const RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000 };
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Waits for the VMM, unless this process took one over, and serves it until it ends.
pub fn serve(session: &Session, listener: OwnedFd) -> std::io::Result<()> {
    let taken_over = session.vmm.get();
    let vmm = match taken_over {
        Some(vmm) => vmm,
        None => {
            let refused = |reason: &str| session.report_failed(reason, false);
            let vmm = await_vmm(&listener, session.peer_uid, session.memory_bytes, refused)?;
            session.vmm.get_or_init(|| vmm)
        }
    };
    session.state.set_regions(&vmm.regions());
    session.report_handshake(vmm)?;
    let installed = new_words(session.pages());
    let mut server = Server {
        session,
        vmm,
        regions: vmm.regions(),
        protect: session.mode == Mode::Restore && session.tracker() == Tracker::Scan,
        installed: PageSet::new(&installed),
        waiting: Vec::with_capacity(FAULTS_MAX),
        ahead: std::mem::take(&mut lock(&session.ahead)),
    };
    if taken_over.is_some() {
        // Whose fault the dead one had read waits for an answer that never comes: it asks again.
        server.regions.iter().for_each(|region| server.wake(region.base, region.size));
    }
    server.run(&listener)?;
    session.report_gone();
    Ok(())
}

struct Server<'a> {
    session: &'a Session,
    vmm: &'a Vmm,
    regions: Arc<Regions>,
    /// Pages are installed write-protected, so that a later write shows.
    protect: bool,
    /// Pages that were installed and not discarded since: a window need not try them. A hint only.
    installed: PageSet<'a>,
    /// Addresses of faults that are read and not answered.
    waiting: Vec<u64>,
    /// Pages to install while nothing waits.
    ahead: VecDeque<Range<u64>>,
}

/// What is to be done about a fault.
enum Answer {
    Answered,
    /// The kernel refused for now.
    Later,
}

impl Server<'_> {
    fn run(&mut self, listener: &OwnedFd) -> std::io::Result<()> {
        let mut events = EventBuffer::new();
        while self.sleep(listener)? {
            let _round = lock(&self.session.round);
            let started = Instant::now();
            loop {
                self.vmm.uffd.read(&mut events)?;
                let more = events.is_full() && self.waiting.len() + crate::uffd::EVENTS_MAX <= FAULTS_MAX;
                for event in events.take() {
                    self.note(event);
                }
                if !more {
                    break;
                }
            }
            let source = self.session.source();
            let mut left = 0;
            for index in 0..self.waiting.len() {
                let address = self.waiting[index];
                if matches!(self.answer(&source, address, started), Answer::Later) {
                    self.waiting[left] = address;
                    left += 1;
                }
            }
            self.waiting.truncate(left);
            if left == 0 {
                self.install_ahead(&source);
            }
        }
        Ok(())
    }

    /// False when the VMM has ended. Its death shows on its socket and its process, never on the userfaultfd.
    fn sleep(&self, listener: &OwnedFd) -> std::io::Result<bool> {
        let ended = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
        let mut polled = [
            PollFd::new(&self.vmm.uffd, PollFlags::IN),
            PollFd::new(&self.vmm.socket, PollFlags::RDHUP),
            PollFd::new(&self.vmm.process, PollFlags::IN),
            PollFd::new(listener, PollFlags::IN),
        ];
        let limit = match (self.waiting.is_empty(), self.ahead.is_empty()) {
            (true, true) => None,
            (true, false) => Some(&AT_ONCE),
            (false, _) => Some(&RETRY),
        };
        rustix::io::retry_on_intr(|| poll(&mut polled, limit))?;
        if polled[1].revents().intersects(ended) || polled[2].revents().contains(PollFlags::IN) {
            return Ok(false);
        }
        if polled[3].revents().contains(PollFlags::IN) && accept(listener)?.is_some() {
            self.session.report_failed("a second connection was refused", true);
        }
        Ok(true)
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Missing { address } => self.waiting.push(address),
            Event::Protected { address } => {
                // Only a peer that registered for it gets here; its write just has to go on.
                if let Err(error) = self.vmm.uffd.unprotect(page_start(address), PAGE_BYTES) {
                    self.session.report_failed(&format!("write fault not answered: {error}"), true);
                }
            }
            Event::Remove { start, end } => self.forget(start..end),
            Event::Unmap { start, end } => {
                self.forget(start..end);
                self.wake(start, end - start);
            }
            Event::Remap { from, to, length } => {
                self.regions = Arc::new(self.regions.moved(from, to, length));
                self.vmm.set_regions((*self.regions).clone());
                self.session.state.set_regions(&self.regions);
                self.wake(from, length);
            }
            // The child's memory is not the VM's. Its descriptor is closed here.
            Event::Fork { uffd } => drop(uffd),
            Event::Other { kind } => {
                self.session.report_failed(&format!("userfaultfd event {kind} is not expected"), true);
            }
        }
    }

    /// From now on the range reads as zero wherever it is missing.
    fn forget(&self, addresses: Range<u64>) {
        for pages in self.regions.pages(addresses) {
            self.session.state.removed().insert(pages.clone());
            self.installed.remove(pages);
        }
    }

    /// Who waits in memory that moved away faults again, or gets its signal.
    fn wake(&self, start: u64, length: u64) {
        if let Err(error) = self.vmm.uffd.wake(start, length) {
            self.session.report_failed(&format!("waiting threads not woken: {error}"), true);
        }
    }

    fn answer(&mut self, source: &Source, address: u64, started: Instant) -> Answer {
        let Some(region) = self.regions.at(address).copied() else {
            self.session.report_failed(&format!("fault at {address:#x}, outside of every region"), true);
            return Answer::Answered;
        };
        let offset = page_start(address) - region.base + region.offset;
        let piece = source.piece(offset);
        let page = offset / PAGE_BYTES;
        let zero = self.is_zero(&piece, page);
        match self.install(&region, &piece, zero, page..page + 1) {
            Install::Done => {}
            Install::Busy => return Answer::Later,
            Install::Present => self.wake(page_start(address), PAGE_BYTES),
            Install::Gone => return Answer::Answered,
            failed => {
                self.session.report_failed(&format!("page at {offset:#x} not installed: {failed:?}"), true);
                return Answer::Answered;
            }
        }
        let counters = &self.session.counters;
        counters.latency.record(started.elapsed());
        counters.faults.fetch_add(1, Ordering::Relaxed);
        counters.pages_faulted.fetch_add(1, Ordering::Relaxed);
        self.install_neighbours(&region, &piece, zero, page);
        Answer::Answered
    }

    fn is_zero(&self, piece: &Piece<'_>, page: u64) -> bool {
        piece.is_zero() || self.session.state.removed().contains(page)
    }

    /// The rest of the window around a page that was just installed. Whatever does not go is left to its own fault.
    fn install_neighbours(&mut self, region: &Region, piece: &Piece<'_>, zero: bool, page: u64) {
        let window = page - page % WINDOW_PAGES..page - page % WINDOW_PAGES + WINDOW_PAGES;
        let first = piece.range.start.max(region.offset) / PAGE_BYTES;
        let last = piece.range.end.min(region.offset + region.size) / PAGE_BYTES;
        let end = window.end.min(last);
        let mut next = window.start.max(first);
        while next < end {
            if !self.belongs(piece, zero, next) {
                next += 1;
                continue;
            }
            let start = next;
            while next < end && self.belongs(piece, zero, next) {
                next += 1;
            }
            if !self.install_run(region, piece, zero, start..next) {
                return;
            }
        }
    }

    /// The next pages of the working set. What the kernel refuses is left to its faults.
    fn install_ahead(&mut self, source: &Source) {
        let Some(wanted) = self.ahead.pop_front() else { return };
        let start = wanted.start * PAGE_BYTES;
        let Some(region) = self.regions.holding(start).copied() else { return };
        let piece = source.piece(start);
        let zero = self.is_zero(&piece, wanted.start);
        let last = piece.range.end.min(region.offset + region.size) / PAGE_BYTES;
        let limit = wanted.end.min(last).min(wanted.start + AHEAD_PAGES);
        let mut end = wanted.start;
        while end < limit && self.belongs(&piece, zero, end) {
            end += 1;
        }
        let mut next = wanted.start + 1;
        if end > wanted.start {
            let done = match self.install(&region, &piece, zero, wanted.start..end) {
                Install::Done => end - wanted.start,
                Install::Part(bytes) => bytes / PAGE_BYTES,
                // An event must be read first.
                Install::Busy => {
                    self.ahead.push_front(wanted);
                    return;
                }
                Install::Present => 0,
                _ => {
                    self.ahead.clear();
                    return;
                }
            };
            self.session.counters.pages_ahead.fetch_add(done, Ordering::Relaxed);
            next = wanted.start + done.max(1);
        }
        if next < wanted.end {
            self.ahead.push_front(next..wanted.end);
        }
    }

    fn belongs(&self, piece: &Piece<'_>, zero: bool, page: u64) -> bool {
        !self.installed.contains(page) && self.is_zero(piece, page) == zero
    }

    /// False if it is better to stop.
    fn install_run(&mut self, region: &Region, piece: &Piece<'_>, zero: bool, mut pages: Range<u64>) -> bool {
        while !pages.is_empty() {
            match self.install(region, piece, zero, pages.clone()) {
                Install::Done => {
                    self.count_neighbours(pages.end - pages.start);
                    return true;
                }
                Install::Part(bytes) => {
                    self.count_neighbours(bytes / PAGE_BYTES);
                    pages.start += bytes / PAGE_BYTES;
                }
                Install::Present => {
                    self.installed.insert(pages.start..pages.start + 1);
                    pages.start += 1;
                }
                _ => return false,
            }
        }
        true
    }

    fn count_neighbours(&self, pages: u64) {
        self.session.counters.pages_faulted.fetch_add(pages, Ordering::Relaxed);
    }

    fn install(&mut self, region: &Region, piece: &Piece<'_>, zero: bool, pages: Range<u64>) -> Install {
        let range = pages.start * PAGE_BYTES..pages.end * PAGE_BYTES;
        let to = range.start - region.offset + region.base;
        let counters = &self.session.counters;
        let bytes = if zero { None } else { piece.bytes(range.clone()) };
        let outcome = match bytes {
            None => self.vmm.uffd.zero(to, range.end - range.start),
            Some(bytes) => {
                let mut outcome = self.vmm.uffd.copy(to, bytes, self.protect);
                if outcome == Install::Refused && self.protect {
                    // Registered for missing pages only: no write marks there, dumps will compare.
                    self.protect = false;
                    outcome = self.vmm.uffd.copy(to, bytes, false);
                }
                outcome
            }
        };
        let done = match outcome {
            Install::Done => range.end - range.start,
            Install::Part(bytes) => bytes,
            _ => 0,
        };
        if done > 0 {
            self.installed.insert(pages.start..pages.start + done / PAGE_BYTES);
            self.session.recorder.note(pages.start..pages.start + done / PAGE_BYTES);
            let total = if bytes.is_some() { &counters.bytes_copied } else { &counters.bytes_zeroed };
            total.fetch_add(done, Ordering::Relaxed);
            if let (Some(_), Some(served)) = (bytes, piece.served()) {
                served.fetch_add(done, Ordering::Relaxed);
            }
        }
        outcome
    }
}

fn page_start(address: u64) -> u64 {
    address & !(PAGE_BYTES - 1)
}
