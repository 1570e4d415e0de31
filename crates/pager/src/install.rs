//! Puts pages into the VM's memory: each from where the image has it, or as zeros. A page that is there stays as it is.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::memory::Span;
use crate::page_set::{PAGE_BYTES, PageSet, new_words};
use crate::patience::Patience;
use crate::regions::{Region, Regions};
use crate::session::{Mode, Session, Tracker};
use crate::source::{Piece, Source};
use crate::uffd::Install;
use crate::vmm::Vmm;
use crate::workset::{Kind, Needed};

/// Larger windows bring many times more bytes than the guest uses, smaller ones more faults.
const WINDOW_PAGES: u64 = 16;

pub struct Installer<'a> {
    session: &'a Session,
    vmm: &'a Vmm,
    /// Pages are installed write-protected, so that a later write shows.
    protect: AtomicBool,
    /// Pages that were installed and not discarded since: a window need not try them. A hint only.
    installed: Box<[AtomicU64]>,
}

/// A page that is missing, and what lies around it.
pub struct Place<'a> {
    pub region: Region,
    pub page: u64,
    piece: Piece<'a>,
    zero: bool,
}

impl<'a> Installer<'a> {
    pub fn new(session: &'a Session, vmm: &'a Vmm) -> Self {
        let protect = session.mode == Mode::Restore && session.tracker() == Tracker::Scan;
        Self { session, vmm, protect: AtomicBool::new(protect), installed: new_words(session.pages()) }
    }

    pub fn find<'s>(&self, source: &'s Source, region: &Region, page: u64) -> Place<'s> {
        let piece = source.piece(page * PAGE_BYTES);
        let zero = self.is_zero(&piece, page);
        Place { region: *region, page, piece, zero }
    }

    /// From now on the pages are missing.
    pub fn forget(&self, pages: Range<u64>) {
        self.installed().remove(pages);
    }

    pub fn install_one(&self, place: &Place<'_>) -> Install {
        let page = place.page..place.page + 1;
        let outcome = self.install(place, page.clone(), true);
        if outcome == Install::Done {
            self.session.note(page, Kind::Read);
        }
        outcome
    }

    /// The rest of the window around a page that was just installed, as far as it comes from the same place. Whatever
    /// does not go is left to its own fault.
    pub fn install_neighbours(&self, place: &Place<'_>) {
        let start = place.page - place.page % WINDOW_PAGES;
        let within = self.within(place, start..start + WINDOW_PAGES);
        let mut next = within.start;
        while next < within.end {
            if !self.comes_with(place, next) {
                next += 1;
                continue;
            }
            let first = next;
            while next < within.end && self.comes_with(place, next) {
                next += 1;
            }
            if !self.install_run(place, first..next) {
                return;
            }
        }
    }

    /// Pages of the working set, without a word to who waits for them (see `Server::holds`). What the kernel refuses is
    /// left to its faults; false if an event must be read before.
    pub fn install_ahead(&self, source: &Source, regions: &Regions, wanted: &mut Range<u64>) -> bool {
        while !wanted.is_empty() {
            let Some(region) = regions.holding(wanted.start * PAGE_BYTES) else { break };
            let place = self.find(source, region, wanted.start);
            let limit = self.within(&place, wanted.clone()).end;
            let mut end = wanted.start;
            while end < limit && self.belongs(&place, end) {
                end += 1;
            }
            if end == wanted.start {
                wanted.start += 1;
                continue;
            }
            let done = match self.install(&place, wanted.start..end, false) {
                Install::Done => end - wanted.start,
                Install::Part(bytes) => bytes / PAGE_BYTES,
                Install::Busy => return false,
                Install::Present => {
                    self.installed().insert(wanted.start..wanted.start + 1);
                    wanted.start += 1;
                    continue;
                }
                _ => {
                    self.session.ahead.stop();
                    break;
                }
            };
            let known = self.session.ahead.kinds(wanted.start..wanted.start + done);
            known.for_each(|Needed { pages, kind }| self.session.note(pages, kind));
            self.session.counters.pages_ahead.fetch_add(done, Ordering::Relaxed);
            wanted.start += done;
        }
        true
    }

    /// All that nobody else installs ahead, when nobody reads events.
    pub fn help(&self) {
        let Session { ahead, .. } = self.session;
        let source = self.session.source();
        while let Some(mut wanted) = ahead.take() {
            let mut patience = Patience::default();
            while !ahead.gate.install(|| self.install_ahead(&source, &self.vmm.regions(), &mut wanted)) {
                patience.wait();
            }
        }
    }

    /// Lifts the protection of pages that came in ahead and will be written: they count as written from now on. The kernel
    /// passes over what is missing, and what it refuses stays as it is.
    pub fn open(&self) {
        if !self.protect.load(Ordering::Relaxed) {
            return;
        }
        let regions = self.vmm.regions();
        for pages in self.session.ahead.open() {
            self.session.assumed_written().insert(pages.clone());
            for Span { address, length } in regions.spans(pages) {
                if self.vmm.uffd.unprotect(address, length, false).is_err() {
                    return;
                }
            }
        }
    }

    fn installed(&self) -> PageSet<'_> {
        PageSet::new(&self.installed)
    }

    fn is_zero(&self, piece: &Piece<'_>, page: u64) -> bool {
        piece.is_zero() || self.session.state.removed().contains(page)
    }

    /// The part of a range of pages that is of one piece and one region with the place.
    fn within(&self, place: &Place<'_>, pages: Range<u64>) -> Range<u64> {
        let Place { region, piece, .. } = place;
        let first = piece.range.start.max(region.offset) / PAGE_BYTES;
        let last = piece.range.end.min(region.offset + region.size) / PAGE_BYTES;
        pages.start.max(first)..pages.end.min(last)
    }

    fn belongs(&self, place: &Place<'_>, page: u64) -> bool {
        !self.installed().contains(page) && self.is_zero(&place.piece, page) == place.zero
    }

    fn comes_with(&self, place: &Place<'_>, page: u64) -> bool {
        self.belongs(place, page) && self.session.ahead.comes_with(place.page, page)
    }

    /// False if it is better to stop.
    fn install_run(&self, place: &Place<'_>, mut pages: Range<u64>) -> bool {
        while !pages.is_empty() {
            let done = match self.install(place, pages.clone(), true) {
                Install::Done => pages.end - pages.start,
                Install::Part(bytes) => bytes / PAGE_BYTES,
                Install::Present => {
                    self.installed().insert(pages.start..pages.start + 1);
                    pages.start += 1;
                    continue;
                }
                _ => return false,
            };
            self.session.note(pages.start..pages.start + done, Kind::Guessed);
            self.session.counters.pages_faulted.fetch_add(done, Ordering::Relaxed);
            pages.start += done;
        }
        true
    }

    /// Pages of the place's piece and region; `wake` those who wait for them.
    fn install(&self, place: &Place<'_>, pages: Range<u64>, wake: bool) -> Install {
        let Place { region, piece, zero, .. } = place;
        let range = pages.start * PAGE_BYTES..pages.end * PAGE_BYTES;
        let to = range.start - region.offset + region.base;
        let bytes = if *zero { None } else { piece.bytes(range.clone()) };
        let outcome = match bytes {
            None => self.vmm.uffd.zero(to, range.end - range.start, wake),
            Some(bytes) => self.copy(to, bytes, wake),
        };
        let done = match outcome {
            Install::Done => range.end - range.start,
            Install::Part(bytes) => bytes,
            _ => return outcome,
        };
        self.installed().insert(pages.start..pages.start + done / PAGE_BYTES);
        let counters = &self.session.counters;
        let total = if bytes.is_some() { &counters.bytes_copied } else { &counters.bytes_zeroed };
        total.fetch_add(done, Ordering::Relaxed);
        if let (Some(_), Some(served)) = (bytes, piece.served()) {
            served.fetch_add(done, Ordering::Relaxed);
        }
        outcome
    }

    fn copy(&self, to: u64, bytes: &[u8], wake: bool) -> Install {
        let protect = self.protect.load(Ordering::Relaxed);
        let outcome = self.vmm.uffd.copy(to, bytes, protect, wake);
        if outcome != Install::Refused || !protect {
            return outcome;
        }
        // Registered for missing pages only: no write marks there, dumps will compare.
        self.protect.store(false, Ordering::Relaxed);
        self.vmm.uffd.copy(to, bytes, false, wake)
    }
}
