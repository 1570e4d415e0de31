//! Whether port 49983 is served, and the life of the VM that its connections belong to.
//!
//! ```text
//!            /init                    /prepare
//!  closed ──────────► open (life n) ────────────► closed (life n)
//!                         ▲  ▲                       │      │
//!                         │  └────────/thaw──────────┘      │
//!                         └──── /init: life n+1 ────────────┘
//! ```
//! A VM that was restored wakes with the connections of the VM it was taken from. `/init` starts a new life: they
//! are cut, whatever they were doing, before anyone is served again. Closed, it lets the host in for a rehearsal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::process::Process;
use crate::token;

pub struct Gate {
    open: AtomicBool,
    life: watch::Sender<u64>,
    /// Processes whose caller left while the gate was closed: killed if this life goes on, kept in a restored one.
    left: Mutex<Vec<Arc<Process>>>,
    /// Who calls with this while the gate is closed is the host.
    rehearsal: Mutex<Option<String>>,
}

/// Marks a request of the host's rehearsal: what it starts is none of the users' processes, which stand still.
#[derive(Clone)]
pub struct Rehearsal;

impl Gate {
    pub fn new(open: bool) -> Gate {
        Gate {
            open: AtomicBool::new(open),
            life: watch::Sender::new(0),
            left: Mutex::default(),
            rehearsal: Mutex::default(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Changes when the connections of the present life must end.
    pub fn life(&self) -> watch::Receiver<u64> {
        self.life.subscribe()
    }

    pub fn close(&self) {
        self.open.store(false, Ordering::Relaxed);
        *self.rehearsal.lock().unwrap() = None;
    }

    /// Until the gate moves.
    pub fn rehearse(&self, token: String) {
        *self.rehearsal.lock().unwrap() = Some(token);
    }

    pub fn is_rehearsed_with(&self, given: Option<&[u8]>) -> bool {
        match (&*self.rehearsal.lock().unwrap(), given) {
            (Some(wanted), Some(given)) => token::equal(given, wanted.as_bytes()),
            _ => false,
        }
    }

    /// The same life goes on.
    pub fn open(&self) {
        *self.rehearsal.lock().unwrap() = None;
        self.open.store(true, Ordering::Relaxed);
        for process in self.left.lock().unwrap().drain(..) {
            process.kill_group();
        }
    }

    /// A new life, still closed.
    pub fn renew(&self) {
        self.close();
        self.left.lock().unwrap().clear();
        self.life.send_modify(|life| *life += 1);
    }

    /// The caller of `process`, who wanted it to die with the call, has left in `life`.
    pub fn caller_left(&self, life: u64, process: &Arc<Process>) {
        if life != *self.life.borrow() {
            return;
        }
        if self.is_open() {
            process.kill_group();
        } else {
            self.left.lock().unwrap().push(process.clone());
        }
    }
}
