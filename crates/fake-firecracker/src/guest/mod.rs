//! The guest: one thread that stands for its processors. Everything it knows is in guest memory or on its root drive;
//! what it has outside of them (TCP connections, running commands) is gone after a restore.
//!
//! | offset | |
//! |---|---|
//! | 0x9000 - 0xbfff | page tables, touched first by a guest that goes on |
//! | 0xde000, 0xdf000 | VMClock, VMGenID |
//! | 0x1000000 | kernel text, of known content |
//! | 0x1010000 | registers (`kernel.rs`) |
//! | 0x1020000 | facts, as JSON (`facts.rs`) |
//! | 0x1200000 | queues of devices |
//! | 0x1300000 - end | free for `fill`, `zero` and `sum` |

mod agent;
mod clock;
mod command;
mod control;
mod disk;
mod facts;
mod kernel;
mod network;
mod process;
mod program;
mod run;

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use rustix::event::{EventfdFlags, eventfd};

pub use disk::RootDrive;
pub use kernel::install;

use crate::devices::network::Mac;
use crate::devices::observe::Serial;
use crate::faults::FaultPlan;
use crate::guest_memory::{GuestMemory, PAGE_BYTES};
use crate::tap::Tap;

pub const CLOCK: u64 = 0xd_e000;
pub const GENERATION: u64 = 0xd_f000;
const PAGE_TABLES: [u64; 3] = [0x9000, 0xa000, 0xb000];
const TEXT: Range<u64> = 0x100_0000..0x101_0000;
const REGISTERS: u64 = 0x101_0000;
const FACTS: Range<u64> = 0x102_0000..0x112_0000;
/// What devices write without anybody noticing.
pub const QUEUES: Range<u64> = 0x120_0000..0x120_0000 + 14 * PAGE_BYTES;
const FREE: u64 = 0x130_0000;
pub const MEMORY_BYTES_MIN: u64 = 0x140_0000;

/// What the guest runs on.
pub struct Wiring {
    pub memory: Arc<GuestMemory>,
    pub root: RootDrive,
    pub network: Option<(Tap, Mac)>,
    pub serial: Serial,
    pub faults: FaultPlan,
    /// How far its clock is behind the host's; milliseconds.
    pub clock_lag_ms: i64,
    /// Its drivers had found their devices before the restore.
    pub drivers_up: bool,
}

/// The VMM's hold on the guest's thread, which ends with the process.
pub struct Guest {
    switch: Arc<Switch>,
}

/// Between the VMM and the thread.
struct Switch {
    phase: Mutex<Phase>,
    changed: Condvar,
    wake: OwnedFd,
    drivers_up: AtomicBool,
    reset: AtomicBool,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Paused,
    /// Told to run, and not yet on its way.
    Resuming,
    Running,
    /// Told to stand still, and not yet there.
    Pausing,
}

impl Guest {
    /// A guest that stands still.
    pub fn new(wiring: Wiring) -> io::Result<Guest> {
        let switch = Arc::new(Switch {
            phase: Mutex::new(Phase::Paused),
            changed: Condvar::new(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            drivers_up: AtomicBool::new(wiring.drivers_up),
            reset: AtomicBool::new(false),
        });
        let inside = switch.clone();
        std::thread::Builder::new().name("fc_vcpu 0".into()).spawn(move || run::run(&inside, wiring))?;
        Ok(Guest { switch })
    }

    /// Returns when the guest runs; it need not have come far.
    pub fn resume(&self) {
        let mut phase = self.switch.phase.lock().unwrap();
        if *phase == Phase::Paused {
            *phase = Phase::Resuming;
            self.switch.changed.notify_all();
        }
        drop(self.switch.changed.wait_while(phase, |phase| *phase == Phase::Resuming));
    }

    /// Returns when the guest stands still.
    pub fn pause(&self) {
        let mut phase = self.switch.phase.lock().unwrap();
        if *phase == Phase::Running {
            *phase = Phase::Pausing;
            self.switch.wake();
        }
        drop(self.switch.changed.wait_while(phase, |phase| *phase == Phase::Pausing));
    }

    pub fn drivers_up(&self) -> bool {
        self.switch.drivers_up.load(Ordering::Relaxed)
    }

    /// The guest resets when it runs, which ends the process with 0.
    pub fn reset(&self) {
        self.switch.reset.store(true, Ordering::Relaxed);
        self.switch.wake();
    }
}

impl Switch {
    fn wake(&self) {
        // Fails only when the thread has not taken the last 2^64 of them.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn take_wake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    fn is_running(&self) -> bool {
        *self.phase.lock().unwrap() == Phase::Running
    }

    /// Stands still until told to run.
    fn stand_still(&self) {
        let mut phase = self.phase.lock().unwrap();
        if *phase == Phase::Pausing {
            *phase = Phase::Paused;
            self.changed.notify_all();
        }
        let mut phase = self.changed.wait_while(phase, |phase| *phase == Phase::Paused).unwrap();
        *phase = Phase::Running;
        self.changed.notify_all();
    }
}
