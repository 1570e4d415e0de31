//! Serves page faults. One thread, without allocation or lock per fault:
//!
//! 1. sleep until the VMM faults, unless there are pages to install ahead;
//! 2. read all waiting events. The kernel hands out faults before a discard that happened earlier, and refuses to
//!    install anything while a discard is unread: so discards are applied first, then the faults answered;
//! 3. for each fault the page itself, then its neighbours;
//! 4. faults that the kernel refused meanwhile wait for the next round, and so do, for a short while, those on pages
//!    that come in ahead anyway;
//! 5. pages to install ahead, a few at a time. A second thread does that too until all are there, a third one watches
//!    for the end of the VMM.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cpu::Thread;
use crate::handshake::{accept, await_vmm};
use crate::install::Installer;
use crate::page_set::PAGE_BYTES;
use crate::regions::Regions;
use crate::session::Session;
use crate::source::Source;
use crate::uffd::{EVENTS_MAX, Event, EventBuffer, Install};
use crate::vmm::Vmm;

/// At most one fault waits per thread of the VMM.
const FAULTS_MAX: usize = 4096;
const NO_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
const RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000 };
/// How long a fault may wait for pages that come in ahead.
const HOLD: Duration = Duration::from_micros(500);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Waits for the VMM, unless this process took one over, and serves it. Returns if there will be none.
pub fn serve(session: &Session, listener: OwnedFd) -> std::io::Result<()> {
    let (helper, met) = (OnceLock::new(), OnceLock::new());
    std::thread::scope(|scope| {
        if session.ahead.is_left() {
            session.ahead.begin_help();
            scope.spawn(|| help(session, &helper, &met));
        }
        let taken_over = session.vmm.get().is_some();
        let vmm = meet(session, &listener);
        if let Some(Some(helper)) = helper.get() {
            helper.move_away();
        }
        let installer = met.get_or_init(|| Some(Installer::new(session, vmm.as_ref().ok()?)));
        let (vmm, Some(installer)) = (vmm?, installer) else { return Ok(()) };
        let mut server = Server {
            session,
            vmm,
            installer,
            regions: vmm.regions(),
            source: session.source(),
            sources: session.sources(),
            waiting: Vec::with_capacity(FAULTS_MAX),
            batch: None,
            faulted: false,
        };
        if taken_over {
            // Whose fault the dead one had read waits for an answer that never comes: it asks again.
            server.regions.iter().for_each(|region| server.wake(region.base, region.size));
        }
        if let Err(error) = session.report_handshake(vmm) {
            session.report_failed(&format!("the handshake was not told: {error}"), false);
        }
        scope.spawn(|| report_end(session, vmm, &listener));
        if let Err(error) = server.run() {
            session.report_failed(&format!("serving ended: {error}"), false);
        }
        Ok(())
    })
}

/// The VMM that was taken over, or the one that connects.
fn meet<'a>(session: &'a Session, listener: &OwnedFd) -> std::io::Result<&'a Vmm> {
    let vmm = match session.vmm.get() {
        Some(vmm) => vmm,
        None => {
            let refused = |reason: &str| session.report_failed(reason, false);
            let vmm = await_vmm(listener, session.peer_uid, session.memory_bytes, refused)?;
            session.vmm.get_or_init(|| vmm)
        }
    };
    session.state.set_regions(&vmm.regions());
    Ok(vmm)
}

/// The VMM's death shows on its socket and its process, never on the userfaultfd: the fault thread sleeps on.
fn report_end(session: &Session, vmm: &Vmm, listener: &OwnedFd) {
    let ended = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
    loop {
        let mut polled = [
            PollFd::new(&vmm.socket, PollFlags::RDHUP),
            PollFd::new(&vmm.process, PollFlags::IN),
            PollFd::new(listener, PollFlags::IN),
        ];
        let woken = rustix::io::retry_on_intr(|| poll(&mut polled, None));
        let [socket, process, caller] = polled.map(|fd| fd.revents());
        if woken.is_err() || socket.intersects(ended) || process.contains(PollFlags::IN) {
            return session.report_gone();
        }
        if caller.contains(PollFlags::IN) && matches!(accept(listener), Ok(Some(_))) {
            session.report_failed("a second connection was refused", true);
        }
    }
}

/// Installs ahead beside the fault thread, which may wait or have faults to answer. It is there before the VMM, so that it
/// begins at once.
fn help(session: &Session, this: &OnceLock<Option<Thread>>, met: &OnceLock<Option<Installer<'_>>>) {
    let this = this.get_or_init(Thread::this);
    let Some(installer) = met.wait() else { return };
    if let Some(this) = this {
        this.release();
    }
    installer.help();
    session.ahead.end_help();
    installer.open();
    while !session.ahead.is_done() {
        std::thread::sleep(LOOK_AGAIN);
    }
    session.mark_untouched();
}

struct Server<'a> {
    session: &'a Session,
    vmm: &'a Vmm,
    installer: &'a Installer<'a>,
    regions: Arc<Regions>,
    source: Arc<Source>,
    /// Which of the session's sources that is.
    sources: u64,
    /// Faults that are read and not answered.
    waiting: Vec<Fault>,
    /// Pages taken to be installed ahead.
    batch: Option<Range<u64>>,
    /// The VM runs, or its monitor touches its memory.
    faulted: bool,
}

#[derive(Clone, Copy)]
struct Fault {
    address: u64,
    /// When it was read.
    since: Instant,
}

/// What is to be done about a fault.
enum Answer {
    Answered,
    /// Not yet: the kernel refuses, or the page comes in ahead.
    Later,
}

impl Server<'_> {
    fn run(&mut self) -> std::io::Result<()> {
        let (rounds, ahead) = (&self.session.rounds, &self.session.ahead);
        rounds.open();
        let mut events = EventBuffer::new();
        loop {
            let is_alone = self.waiting.is_empty() && !self.is_ahead_left() && !ahead.is_helped();
            if is_alone {
                self.vmm.uffd.wait(&mut events)?;
                rounds.begin();
                self.take_note(&mut events)?;
            } else {
                let is_readable = self.sleep()?;
                rounds.begin();
                // Where it is not, the other thread need not be kept from installing.
                if is_readable {
                    ahead.gate.read(|| {
                        self.vmm.uffd.read(&mut events)?;
                        self.take_note(&mut events)
                    })?;
                }
            }
            self.answer_all();
            rounds.end();
            self.install_ahead();
        }
    }

    /// Until something is to be done. Whether that is an event to read.
    fn sleep(&self) -> std::io::Result<bool> {
        let limit = match (self.waiting.is_empty(), self.is_ahead_left()) {
            (_, true) => Some(&NO_TIME),
            (true, false) => None,
            (false, false) => Some(&RETRY),
        };
        self.vmm.uffd.poll(limit)
    }

    fn is_ahead_left(&self) -> bool {
        self.batch.is_some() || self.session.ahead.is_ready()
    }

    /// Of the events read, and of all that wait behind them.
    fn take_note(&mut self, events: &mut EventBuffer) -> std::io::Result<()> {
        loop {
            let more = events.is_full() && self.waiting.len() + EVENTS_MAX <= FAULTS_MAX;
            for event in events.take() {
                self.note(event);
            }
            if !more {
                return Ok(());
            }
            self.vmm.uffd.read(events)?;
        }
    }

    fn answer_all(&mut self) {
        if self.sources != self.session.sources() {
            self.sources = self.session.sources();
            self.source = self.session.source();
        }
        let mut left = 0;
        for index in 0..self.waiting.len() {
            let fault = self.waiting[index];
            if matches!(self.answer(fault), Answer::Later) {
                self.waiting[left] = fault;
                left += 1;
            }
        }
        self.waiting.truncate(left);
    }

    fn install_ahead(&mut self) {
        if !self.is_ahead_left() {
            return;
        }
        let Some(mut batch) = self.batch.take().or_else(|| self.session.ahead.begin_batch()) else { return };
        if self.installer.install_ahead(&self.source, &self.regions, &mut batch) {
            self.session.ahead.end_batch();
        } else {
            self.batch = Some(batch);
        }
        if self.faulted && self.waiting.is_empty() {
            // The VM may wait for this very processor.
            std::thread::yield_now();
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Missing { address, write } => {
                if write {
                    let pages = self.regions.pages(page_start(address)..page_start(address) + PAGE_BYTES);
                    pages.for_each(|pages| self.session.recorder.note_written(pages));
                }
                self.faulted = true;
                self.waiting.push(Fault { address, since: Instant::now() });
            }
            Event::Protected { address } => {
                // Only a peer that registered for it gets here; its write just has to go on.
                if let Err(error) = self.vmm.uffd.unprotect(page_start(address), PAGE_BYTES, true) {
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
            self.installer.forget(pages);
        }
    }

    /// Who waits in memory that moved away faults again, or gets its signal.
    fn wake(&self, start: u64, length: u64) {
        if let Err(error) = self.vmm.uffd.wake(start, length) {
            self.session.report_failed(&format!("waiting threads not woken: {error}"), true);
        }
    }

    /// The VM takes less time to touch pages that are all there than to wait for one after the other. So who waits for one
    /// that comes in ahead, sleeps until many are there.
    fn holds(&self, page: u64, since: Instant) -> bool {
        self.session.ahead.is_coming(page) && since.elapsed() < HOLD
    }

    fn answer(&self, Fault { address, since }: Fault) -> Answer {
        let Some(region) = self.regions.at(address) else {
            self.session.report_failed(&format!("fault at {address:#x}, outside of every region"), true);
            return Answer::Answered;
        };
        let offset = page_start(address) - region.base + region.offset;
        if self.holds(offset / PAGE_BYTES, since) {
            return Answer::Later;
        }
        let place = self.installer.find(&self.source, region, offset / PAGE_BYTES);
        match self.installer.install_one(&place) {
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
        counters.latency.record(since.elapsed());
        counters.faults.fetch_add(1, Ordering::Relaxed);
        counters.pages_faulted.fetch_add(1, Ordering::Relaxed);
        self.installer.install_neighbours(&place);
        Answer::Answered
    }
}

fn page_start(address: u64) -> u64 {
    address & !(PAGE_BYTES - 1)
}
