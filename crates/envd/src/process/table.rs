//! The processes that run, and for a while those that ended.
//!
//! ```text
//!  running ──leader exits──► draining ──pipes at EOF, or given up──► ended (kept ENDED_KEPT) ──► forgotten
//! ```
//! The leader is reaped the moment it exits; its pid is not signalled afterwards.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::net::unix::pipe::Sender;
use tokio::sync::{Notify, mpsc};

use super::event::Event;
use super::start::Config;

/// A late `Connect` still learns how the process ended.
const ENDED_KEPT: Duration = Duration::from_secs(30);
const ENDED_MAX: usize = 64;

pub struct Process {
    pub pid: Pid,
    pub config: Config,
    pub tag: Option<String>,
    pub has_terminal: bool,
    /// None: closed, or never opened. Held while input is written, so that inputs keep their order.
    pub input: tokio::sync::Mutex<Option<Sender>>,
    /// The agent's side of the terminal, until the process has ended.
    pub terminal: Mutex<Option<OwnedFd>>,
    /// The output is not waited for once the leader is gone: it was killed on request.
    pub abandon: Notify,
    reaped: AtomicBool,
    listeners: Mutex<Listeners>,
}

enum Listeners {
    Present(Vec<mpsc::Sender<Event>>),
    /// The process has ended, with this event.
    Ended(Event),
}

/// What a new subscriber gets.
pub enum Subscription {
    Live(mpsc::Receiver<Event>),
    Ended(Event),
}

/// Events that wait for one subscriber, each at most a chunk of output.
const QUEUE_EVENTS: usize = 4;

impl Process {
    pub fn new(
        pid: Pid,
        config: Config,
        tag: Option<String>,
        input: Option<Sender>,
        terminal: Option<OwnedFd>,
    ) -> Arc<Process> {
        Arc::new(Process {
            pid,
            config,
            tag,
            has_terminal: terminal.is_some(),
            input: tokio::sync::Mutex::new(input),
            terminal: Mutex::new(terminal),
            abandon: Notify::new(),
            reaped: AtomicBool::new(false),
            listeners: Mutex::new(Listeners::Present(Vec::new())),
        })
    }

    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get() as u32
    }

    pub fn subscribe(&self) -> Subscription {
        match &mut *self.listeners.lock().unwrap() {
            Listeners::Ended(event) => Subscription::Ended(event.clone()),
            Listeners::Present(present) => {
                let (sender, receiver) = mpsc::channel(QUEUE_EVENTS);
                present.push(sender);
                Subscription::Live(receiver)
            }
        }
    }

    /// Those that listen now. The lock is never held while one of them is waited for.
    pub fn listeners(&self) -> Vec<mpsc::Sender<Event>> {
        match &mut *self.listeners.lock().unwrap() {
            Listeners::Ended(_) => Vec::new(),
            Listeners::Present(present) => {
                present.retain(|listener| !listener.is_closed());
                present.clone()
            }
        }
    }

    /// From now on subscribers are told the end at once; returns those who were waiting for it.
    pub fn end(&self, event: Event) -> Vec<mpsc::Sender<Event>> {
        match std::mem::replace(&mut *self.listeners.lock().unwrap(), Listeners::Ended(event)) {
            Listeners::Present(present) => present,
            Listeners::Ended(_) => Vec::new(),
        }
    }

    fn has_ended(&self) -> bool {
        matches!(*self.listeners.lock().unwrap(), Listeners::Ended(_))
    }

    /// The leader was waited for: its pid may mean another process from now on.
    pub fn set_reaped(&self) {
        self.reaped.store(true, Ordering::Relaxed);
    }

    /// Signals the leader alone; a leader that is gone already is success.
    pub fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        if self.reaped.load(Ordering::Relaxed) {
            return Ok(());
        }
        kill_process(self.pid, signal)
    }

    /// Kills the leader and what it started in its group. The group's number stays taken as long as the group has
    /// members.
    pub fn kill_group(&self) {
        if !self.has_ended() {
            self.abandon.notify_one();
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

#[derive(Default)]
pub struct Processes {
    running: Mutex<BTreeMap<u32, Arc<Process>>>,
    ended: Mutex<VecDeque<(Instant, Arc<Process>)>>,
}

impl Processes {
    pub fn insert(&self, process: &Arc<Process>) {
        self.running.lock().unwrap().insert(process.id(), process.clone());
    }

    pub fn running(&self) -> Vec<Arc<Process>> {
        self.running.lock().unwrap().values().cloned().collect()
    }

    /// Moves an ended process out of the list. A later process may have its pid already.
    pub fn retire(&self, process: &Arc<Process>) {
        let mut running = self.running.lock().unwrap();
        if running.get(&process.id()).is_some_and(|current| Arc::ptr_eq(current, process)) {
            running.remove(&process.id());
        }
        let mut ended = self.ended.lock().unwrap();
        ended.retain(|(at, _)| at.elapsed() < ENDED_KEPT);
        ended.truncate(ENDED_MAX - 1);
        ended.push_front((Instant::now(), process.clone()));
    }

    /// The newest process that ended in the last half minute and matches.
    pub fn ended(&self, matches: impl Fn(&Process) -> bool) -> Option<Arc<Process>> {
        let ended = self.ended.lock().unwrap();
        let found = ended.iter().find(|(at, process)| at.elapsed() < ENDED_KEPT && matches(process));
        found.map(|(_, process)| process.clone())
    }
}
