//! The loop: one thread, everything it waits for in one poll. One thread because the parent-death signal of a
//! child follows the thread that started it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};
use thaw_control::ControlError;

use crate::answer::{Caller, frame};
use crate::child::Child;
use crate::connection::{Connection, Input};
use crate::jail::Jail;
use crate::pending::Pending;
use crate::receive::Receive;
use crate::request::Request;
use crate::source::{Kept, Stock};

pub struct Keeper {
    pub run_dir: PathBuf,
    pub jail: Option<Jail>,
    pub kept: Kept,
    pub receive: Option<Receive>,
    pub children: BTreeMap<u64, Child>,
    pub pending: Vec<Pending>,
    pub last_question: u64,
    pub ended: bool,
    connections: BTreeMap<u64, Connection>,
    last_key: u64,
}

/// What a descriptor in the poll set belongs to.
#[derive(Clone, Copy)]
enum Token {
    Listener,
    Connection(u64),
    Exit(u64),
    Output(u64),
    Channel(u64),
    Stream,
}

const CONNECTIONS_MAX: usize = 64;
const PENDING_MAX: usize = 1024;

impl Keeper {
    pub fn new(run_dir: PathBuf) -> Self {
        Self {
            run_dir,
            jail: None,
            kept: Kept::new(),
            receive: None,
            children: BTreeMap::new(),
            pending: Vec::new(),
            last_question: 0,
            ended: false,
            connections: BTreeMap::new(),
            last_key: 0,
        }
    }

    pub fn serve(mut self, listener: &UnixListener) -> io::Result<()> {
        while !self.ended {
            self.turn(listener)?;
        }
        for connection in self.connections.into_values() {
            connection.finish();
        }
        Ok(())
    }

    fn turn(&mut self, listener: &UnixListener) -> io::Result<()> {
        for token in self.await_ready(listener)? {
            match token {
                Token::Listener => self.accept(listener),
                Token::Connection(key) => self.read(key),
                Token::Exit(key) => self.notice_exit(key)?,
                Token::Output(key) => {
                    if let Some(child) = self.children.get_mut(&key) {
                        child.drain_output();
                    }
                }
                Token::Channel(key) => self.hear(key),
                Token::Stream => self.advance_stream(),
            }
            if self.ended {
                return Ok(());
            }
        }
        self.expire();
        Ok(())
    }

    fn await_ready(&self, listener: &UnixListener) -> io::Result<Vec<Token>> {
        let mut watched: Vec<(Token, BorrowedFd<'_>, PollFlags)> = Vec::new();
        if self.connections.len() < CONNECTIONS_MAX {
            watched.push((Token::Listener, listener.as_fd(), PollFlags::IN));
        }
        for (key, connection) in &self.connections {
            let write = if connection.wants_write() { PollFlags::OUT } else { PollFlags::empty() };
            watched.push((Token::Connection(*key), connection.stream.as_fd(), PollFlags::IN | write));
        }
        for (key, child) in self.children.iter().filter(|(_, child)| child.is_running()) {
            // Before the exit, so that nothing a child said or wrote is lost.
            if let Some(channel) = &child.channel {
                watched.push((Token::Channel(*key), channel.as_fd(), PollFlags::IN));
            }
            if let Some(output) = &child.output {
                watched.push((Token::Output(*key), output.as_fd(), PollFlags::IN));
            }
            watched.push((Token::Exit(*key), child.pidfd.as_fd(), PollFlags::IN));
        }
        if let Some(fd) = self.receive.as_ref().and_then(Receive::fd) {
            watched.push((Token::Stream, fd, PollFlags::IN));
        }
        let mut polled: Vec<PollFd<'_>> =
            watched.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let next = self.pending.iter().filter_map(|pending| pending.deadline).min();
        let timeout = next.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        rustix::io::retry_on_intr(|| poll(&mut polled, timeout.as_ref()))?;
        let ready = watched.iter().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
        Ok(ready.map(|((token, _, _), _)| *token).collect())
    }

    fn accept(&mut self, listener: &UnixListener) {
        if let Ok(connection) = listener.accept().and_then(|(stream, _)| Connection::new(stream)) {
            let key = self.next_key();
            self.connections.insert(key, connection);
        }
    }

    fn read(&mut self, key: u64) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if !connection.flush() {
            return self.hang_up(key);
        }
        let mut lines = Vec::new();
        let input = connection.read(&mut lines);
        for line in lines {
            self.handle(key, &line);
            if self.ended {
                return;
            }
        }
        match input {
            Input::Open => {}
            Input::Closed => self.hang_up(key),
            Input::Overlong => {
                self.send(key, &frame(&Value::Null, Err(ControlError::invalid("the line is too long"))));
                self.hang_up(key);
            }
        }
    }

    fn handle(&mut self, key: u64, line: &[u8]) {
        match Request::parse(line) {
            Err(error) => self.send(key, &frame(&Value::Null, Err(error))),
            Ok(mut request) => {
                let caller = Caller { connection: key, id: request.id.clone() };
                match self.dispatch(&caller, &mut request) {
                    Ok(None) => {}
                    Ok(Some(result)) => self.send(key, &frame(&caller.id, Ok(result))),
                    Err(error) => self.send(key, &frame(&caller.id, Err(error))),
                }
            }
        }
    }

    /// `None`: the answer comes later.
    fn dispatch(&mut self, caller: &Caller, request: &mut Request) -> Result<Option<Value>, ControlError> {
        if self.pending.len() >= PENDING_MAX {
            return Err(ControlError::new("exhausted", "too many requests are waiting"));
        }
        match request.op.as_str() {
            "jail" => self.build_jail(request).map(Some),
            "spawn" => self.spawn(request).map(Some),
            "ask" => self.ask(caller, request).map(|()| None),
            "run" => self.run_once(caller, request).map(|()| None),
            "receive" => self.start_receive(request).map(Some),
            "received" => self.await_stream(caller, request),
            "wait" => self.await_exit(caller, request),
            "signal" => self.signal(request).map(Some),
            "logs" => self.logs(request).map(Some),
            "status" => Ok(Some(self.status())),
            "end" => self.end().map(Some),
            other => Err(ControlError::invalid(format!("{other}: no such operation"))),
        }
    }

    fn build_jail(&mut self, request: &mut Request) -> Result<Value, ControlError> {
        if self.jail.is_some() {
            return Err(ControlError::new("invalid_state", "the jail was built already"));
        }
        self.jail = Some(Jail::build(&self.run_dir, request.body()?)?);
        Ok(json!({}))
    }

    pub fn send(&mut self, key: u64, frame: &Value) {
        let gone = self.connections.get_mut(&key).is_some_and(|connection| !connection.send(frame));
        if gone {
            self.hang_up(key);
        }
    }

    pub fn broadcast(&mut self, event: &Value) {
        let keys: Vec<u64> = self.connections.keys().copied().collect();
        for key in keys {
            self.send(key, event);
        }
    }

    fn hang_up(&mut self, key: u64) {
        self.connections.remove(&key);
        self.pending.retain(|pending| pending.caller.connection != key);
    }

    pub fn stock(&mut self) -> Stock<'_> {
        Stock { jail: self.jail.as_ref(), kept: &mut self.kept, children: &self.children }
    }

    pub fn next_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }
}
