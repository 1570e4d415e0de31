//! One VM's memory: what the thread that serves faults and the thread that answers requests share.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::Errno;
use serde_json::json;
use thaw_control::{Channel, ControlError};

use crate::ahead::Ahead;
use crate::dump;
use crate::latency::Latency;
use crate::page_set::{PAGE_BYTES, PageSet, new_words};
use crate::pagemap::Found;
use crate::pre_dump::PreDump;
use crate::rounds::Rounds;
use crate::source::{BytesByBuild, Source};
use crate::state::State;
use crate::touched;
use crate::vmm::Vmm;
use crate::workset::{Kind, RUN_PAGES_MAX, Recorder};

/// Failures told to the keeper; more of them say nothing new, and a VMM must not be able to flood it.
const REPORTS_MAX: u64 = 32;

/// How the VM's memory began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Empty; the kernel fills missing pages with zeros.
    Boot,
    /// From a build; missing pages are served from here.
    Restore,
    /// From a build, whose files the VMM has mapped privately: no page is ever missing, and what the guest writes becomes
    /// anonymous.
    Mapped,
}

/// How dirty pages are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracker {
    /// By the kernel's write marks.
    Scan,
    /// By comparing every present page with the last committed build.
    Compare,
}

pub struct Session {
    pub memory_bytes: u64,
    pub mode: Mode,
    pub peer_uid: u32,
    pub state: State,
    pub counters: Counters,
    pub recorder: Recorder,
    /// The kernel marks the pages that are written, as far as was known at the start.
    marks_writes: bool,
    pub ahead: Ahead,
    pub bytes_by_build: Mutex<BytesByBuild>,
    /// Set at the handshake.
    pub vmm: OnceLock<Vmm>,
    pub rounds: Rounds,
    channel: Arc<Channel>,
    source: Mutex<Arc<Source>>,
    /// How often it was replaced.
    sources: AtomicU64,
    tracker: Mutex<Tracker>,
    gone: AtomicBool,
    /// Which pages that came in ahead are touched shows from now on.
    marked: AtomicBool,
    /// Pages that came in unprotected since the last commit: only their content tells whether they were written.
    assumed_written: Box<[AtomicU64]>,
    /// Waits for its dump.
    pub pre_dumped: Mutex<Option<PreDump>>,
    /// A whole dump waits for its commit.
    pub dumped: AtomicBool,
    reports: AtomicU64,
}

pub struct Counters {
    pub faults: AtomicU64,
    pub pages_faulted: AtomicU64,
    /// Installed before the VM asked for them.
    pub pages_ahead: AtomicU64,
    pub bytes_copied: AtomicU64,
    pub bytes_zeroed: AtomicU64,
    /// Read from the VM's memory by dumps, while it stood still.
    pub read_frozen_bytes: AtomicU64,
    pub latency: Latency,
}

impl Session {
    pub fn new(
        channel: Arc<Channel>,
        memory_bytes: u64,
        mode: Mode,
        tracker: Tracker,
        peer_uid: u32,
        state: State,
        source: Source,
    ) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            memory_bytes,
            mode,
            peer_uid,
            state,
            counters: Counters {
                faults: zero(),
                pages_faulted: zero(),
                pages_ahead: zero(),
                bytes_copied: zero(),
                bytes_zeroed: zero(),
                read_frozen_bytes: zero(),
                latency: Latency::new(),
            },
            marks_writes: tracker == Tracker::Scan,
            recorder: Recorder::new(memory_bytes / PAGE_BYTES),
            ahead: Ahead::none(memory_bytes / PAGE_BYTES),
            bytes_by_build: Mutex::default(),
            vmm: OnceLock::new(),
            rounds: Rounds::default(),
            channel,
            source: Mutex::new(Arc::new(source)),
            sources: zero(),
            tracker: Mutex::new(tracker),
            gone: AtomicBool::new(false),
            marked: AtomicBool::new(false),
            assumed_written: new_words(memory_bytes / PAGE_BYTES),
            pre_dumped: Mutex::new(None),
            dumped: AtomicBool::new(false),
            reports: zero(),
        }
    }

    pub fn pages(&self) -> u64 {
        self.memory_bytes / PAGE_BYTES
    }

    pub fn assumed_written(&self) -> PageSet<'_> {
        PageSet::new(&self.assumed_written)
    }

    /// Whether pages are those of a build that the VMM has mapped: nobody has written them.
    pub fn is_builds(&self, found: &Found) -> bool {
        self.mode == Mode::Mapped && found.file
    }

    pub fn source(&self) -> Arc<Source> {
        Arc::clone(&lock(&self.source))
    }

    pub fn set_source(&self, source: Source) {
        *lock(&self.source) = Arc::new(source);
        self.sources.fetch_add(1, Ordering::Release);
    }

    /// Changes when `source` does.
    pub fn sources(&self) -> u64 {
        self.sources.load(Ordering::Acquire)
    }

    pub fn tracker(&self) -> Tracker {
        *lock(&self.tracker)
    }

    pub fn set_tracker(&self, tracker: Tracker) {
        *lock(&self.tracker) = tracker;
    }

    /// Waits until every event that was read before this call is dealt with. A discard goes on in the VMM as soon as
    /// its event is read, which may be before `removed` says so.
    pub fn settle(&self) {
        self.rounds.settle();
    }

    /// Takes note of pages that came in. What an earlier run wrote shows again by the kernel's marks, if there are any.
    pub fn note(&self, pages: Range<u64>, kind: Kind) {
        match (kind, self.marks_writes) {
            (Kind::Written, false) => {
                self.recorder.note(pages.clone(), Kind::Read);
                self.recorder.note_written(pages);
            }
            (Kind::Written, true) => self.recorder.note(pages, Kind::Guessed),
            _ => self.recorder.note(pages, kind),
        }
    }

    /// What was written until now is known by the kernel's marks, where there are any; else by who waited to write.
    pub fn end_recording(&self) -> std::io::Result<()> {
        if !self.recorder.is_on() {
            return Ok(());
        }
        // The VM goes on before it is noted what it has got.
        self.settle();
        let recorded = self.running_vmm().map_or(Ok(()), |vmm| self.record(vmm));
        self.recorder.end();
        recorded
    }

    fn record(&self, vmm: &Vmm) -> std::io::Result<()> {
        if self.mode == Mode::Mapped {
            self.record_touched(vmm)?;
        }
        if self.tracker() != Tracker::Scan {
            return Ok(());
        }
        match self.record_written(vmm) {
            // Memory that is registered for missing pages only, as a VMM does that tracks its writes itself.
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => Ok(()),
            result => result,
        }
    }

    /// No fault tells which pages of a mapped build the VM needed; those are there.
    fn record_touched(&self, vmm: &Vmm) -> std::io::Result<()> {
        dump::walk_all(self, vmm, |pages, found| {
            let mut start = pages.start;
            while start < pages.end && !found.zero {
                let end = pages.end.min(start + RUN_PAGES_MAX);
                self.recorder.note(start..end, Kind::Read);
                start = end;
            }
        })
    }

    fn record_written(&self, vmm: &Vmm) -> std::io::Result<()> {
        let regions = vmm.regions();
        let pagemap = vmm.pagemap(self.peer_uid)?;
        regions.iter().try_for_each(|region| {
            pagemap.written(region.addresses(), self.mode == Mode::Mapped, |addresses| {
                regions.pages(addresses).for_each(|pages| self.recorder.note_written(pages));
            })
        })
    }

    /// Once all pages are there that come in ahead, and the VMM's file is too: to be called when either happened.
    pub fn mark_untouched(&self) {
        let file = self.vmm.get().and_then(Vmm::clear_refs);
        if let (Some(file), true) = (file, self.ahead.is_done() && !self.ahead.is_helped())
            && self.counters.pages_ahead.load(Ordering::Relaxed) > 0
            && !self.marked.load(Ordering::Relaxed)
            && touched::clear(file).is_ok()
        {
            self.marked.store(true, Ordering::Relaxed);
        }
    }

    /// Bytes that came in ahead and that the VM has not touched (see `touched`); none if nobody knows.
    pub fn untouched_bytes(&self) -> Option<u64> {
        let ahead = self.counters.pages_ahead.load(Ordering::Relaxed) * PAGE_BYTES;
        if ahead == 0 {
            return Some(0);
        }
        let vmm = self.running_vmm().ok().filter(|_| self.marked.load(Ordering::Relaxed))?;
        touched::untouched_bytes(vmm).ok().map(|bytes| bytes.min(ahead))
    }

    /// The VMM, as long as it lives.
    pub fn running_vmm(&self) -> Result<&Vmm, ControlError> {
        let vmm = self
            .vmm
            .get()
            .ok_or_else(|| ControlError::new("invalid_state", "no VMM has shaken hands yet"))?;
        if self.gone.load(Ordering::Acquire) || !vmm.process.is_running()? {
            return Err(ended());
        }
        Ok(vmm)
    }

    /// To be called once all was found that is there of the VMM's memory, and was read: fails if that may have been less than
    /// there was. A process that is ending loses its memory before it counts as ended.
    pub fn check_memory(&self, vmm: &Vmm) -> Result<(), ControlError> {
        if !vmm.pagemap(self.peer_uid)?.is_alive()? {
            return Err(ended());
        }
        // Reads went by process id: it was the VMM's.
        self.running_vmm().map(|_| ())
    }

    /// Tells the keeper that the VMM has shaken hands, and hands it spares of the userfaultfd and the socket.
    pub fn report_handshake(&self, vmm: &Vmm) -> std::io::Result<()> {
        use std::os::fd::AsFd;
        let regions = vmm.regions().count();
        self.channel
            .send(&json!({"event": "handshake", "regions": regions}), &[vmm.uffd.as_fd(), vmm.socket.as_fd()])
    }

    pub fn report_gone(&self) {
        self.gone.store(true, Ordering::Release);
        self.report(json!({"event": "gone"}));
    }

    /// Tells the keeper what went wrong. `serving`: the VM's memory is served all the same.
    pub fn report_failed(&self, reason: &str, serving: bool) {
        if self.reports.fetch_add(1, Ordering::Relaxed) < REPORTS_MAX {
            eprintln!("thaw-pager: {reason}");
            self.report(json!({"event": "failed", "reason": reason, "serving": serving}));
        }
    }

    /// An event that can't be sent has no one left to hear it: the request loop ends the process then.
    fn report(&self, event: serde_json::Value) {
        if let Err(error) = self.channel.send(&event, &[]) {
            eprintln!("thaw-pager: event not sent: {error}");
        }
    }
}

/// Nothing panics while one of these locks is held, so a poisoned one still guards whole values.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ended() -> ControlError {
    ControlError::new("invalid_state", "the VMM has ended")
}
