//! One VM's memory: what the thread that serves faults and the thread that answers requests share.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::json;
use thaw_control::{Channel, ControlError};

use crate::latency::Latency;
use crate::page_set::PAGE_BYTES;
use crate::pagemap::Found;
use crate::source::{BytesByBuild, Source};
use crate::state::State;
use crate::vmm::Vmm;
use crate::workset::Recorder;

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
    /// Pages to install ahead of their faults.
    pub ahead: Mutex<VecDeque<Range<u64>>>,
    pub bytes_by_build: Mutex<BytesByBuild>,
    /// Set at the handshake.
    pub vmm: OnceLock<Vmm>,
    /// Held while events that were read are not yet dealt with.
    pub round: Mutex<()>,
    channel: Arc<Channel>,
    source: Mutex<Arc<Source>>,
    tracker: Mutex<Tracker>,
    gone: AtomicBool,
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
            recorder: Recorder::new(memory_bytes / PAGE_BYTES),
            ahead: Mutex::default(),
            bytes_by_build: Mutex::default(),
            vmm: OnceLock::new(),
            round: Mutex::new(()),
            channel,
            source: Mutex::new(Arc::new(source)),
            tracker: Mutex::new(tracker),
            gone: AtomicBool::new(false),
            dumped: AtomicBool::new(false),
            reports: zero(),
        }
    }

    pub fn pages(&self) -> u64 {
        self.memory_bytes / PAGE_BYTES
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
        drop(lock(&self.round));
    }

    /// The VMM, as long as it lives.
    pub fn running_vmm(&self) -> Result<&Vmm, ControlError> {
        let vmm = self
            .vmm
            .get()
            .ok_or_else(|| ControlError::new("invalid_state", "no VMM has shaken hands yet"))?;
        if self.gone.load(Ordering::Acquire) || !vmm.process.is_running()? {
            return Err(ControlError::new("invalid_state", "the VMM has ended"));
        }
        Ok(vmm)
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
