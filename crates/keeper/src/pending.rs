//! Requests that wait for something to happen.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use thaw_control::ControlError;

use crate::answer::{Caller, frame};
use crate::keeper::Keeper;

/// A request whose answer depends on something yet to happen.
pub struct Pending {
    pub caller: Caller,
    pub awaited: Awaited,
    pub deadline: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Awaited {
    Answer { child: u64, question: u64 },
    Exit { child: u64 },
    Output { child: u64 },
    Stream,
}

impl Keeper {
    pub fn await_outcome(&mut self, caller: &Caller, awaited: Awaited, timeout_ms: u64) {
        let deadline = Instant::now().checked_add(Duration::from_millis(timeout_ms));
        self.pending.push(Pending { caller: caller.clone(), awaited, deadline });
    }

    /// Answers everybody who waits for `awaited`.
    pub fn settle(&mut self, awaited: Awaited, result: &dyn Fn() -> Result<Value, ControlError>) {
        let (settled, rest) =
            std::mem::take(&mut self.pending).into_iter().partition(|pending| pending.awaited == awaited);
        self.pending = rest;
        for Pending { caller, .. } in settled {
            self.send(caller.connection, &frame(&caller.id, result()));
        }
    }

    pub fn expire(&mut self) {
        let now = Instant::now();
        let is_late = |pending: &Pending| pending.deadline.is_some_and(|deadline| deadline <= now);
        let (late, rest) = std::mem::take(&mut self.pending).into_iter().partition(is_late);
        self.pending = rest;
        for Pending { caller, awaited, .. } in late {
            if let Awaited::Output { child } = awaited
                && let Some(child) = self.children.get(&child)
                && let Err(error) = child.signal(Signal::KILL)
            {
                eprintln!("kill of a late command: {error}");
            }
            self.send(caller.connection, &frame(&caller.id, Err(ControlError::new("timeout", "too late"))));
        }
    }
}
