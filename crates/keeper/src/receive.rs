//! Takes one stream (a VMM's device state) from a Unix socket into a file.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::net::{SocketFlags, accept_with, sockopt::socket_peercred};

use serde_json::{Value, json};
use thaw_control::ControlError;

use crate::answer::Caller;
use crate::connection::is_later;
use crate::keeper::Keeper;
use crate::pending::Awaited;
use crate::request::{self, Request};
use crate::source::listen_at;

/// ```text
///  listening ─ peer of the right uid ─► taking ─ end of stream ─► done
/// ```
pub struct Receive {
    socket: PathBuf,
    file: File,
    uid: u32,
    size_bytes: u64,
    stage: Stage,
}

enum Stage {
    Listening(OwnedFd),
    Taking(UnixStream),
    Done(Result<(), String>),
}

impl Receive {
    /// The file must not exist yet.
    pub fn start(request: &request::Receive) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(&request.file)?;
        let socket = PathBuf::from(&request.socket);
        let listener = listen_at(&socket, request.uid, 0o600)?;
        rustix::io::ioctl_fionbio(&listener, true)?;
        Ok(Self { socket, file, uid: request.uid, size_bytes: 0, stage: Stage::Listening(listener) })
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.stage {
            Stage::Listening(listener) => Some(listener.as_fd()),
            Stage::Taking(stream) => Some(stream.as_fd()),
            Stage::Done(_) => None,
        }
    }

    /// The bytes received or why not; `None` while it goes on.
    pub fn outcome(&self) -> Option<Result<u64, String>> {
        match &self.stage {
            Stage::Done(result) => Some(result.clone().map(|()| self.size_bytes)),
            Stage::Listening(_) | Stage::Taking(_) => None,
        }
    }

    pub fn advance(&mut self) {
        let next = match &mut self.stage {
            Stage::Listening(listener) => accept_peer(listener, self.uid).map(|peer| peer.map(Stage::Taking)),
            Stage::Taking(stream) => {
                match io::copy(stream, &mut Counted(&mut self.file, &mut self.size_bytes)) {
                    Ok(_) => Ok(Some(Stage::Done(Ok(())))),
                    Err(error) => Err(error),
                }
            }
            Stage::Done(_) => Ok(None),
        };
        match next {
            Ok(None) => {}
            Ok(Some(stage)) => self.enter(stage),
            Err(error) if is_later(&error) => {}
            Err(error) => self.enter(Stage::Done(Err(error.to_string()))),
        }
    }

    fn enter(&mut self, stage: Stage) {
        unlink(&self.socket);
        self.stage = stage;
    }
}

impl Drop for Receive {
    fn drop(&mut self) {
        if let Stage::Listening(_) = self.stage {
            unlink(&self.socket);
        }
    }
}

/// A peer of any other user is turned away and the wait goes on.
fn accept_peer(listener: &OwnedFd, uid: u32) -> io::Result<Option<UnixStream>> {
    let peer = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let from = socket_peercred(&peer)?.uid.as_raw();
    Ok((from == uid).then(|| UnixStream::from(peer)))
}

fn unlink(path: &Path) {
    let _ = std::fs::remove_file(path);
}

struct Counted<'a>(&'a mut File, &'a mut u64);

impl io::Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes)?;
        *self.1 += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Keeper {
    pub fn start_receive(&mut self, request: &mut Request) -> Result<Value, ControlError> {
        self.receive = None;
        self.settle(Awaited::Stream, &|| Err(ControlError::new("conflict", "another receive has begun")));
        self.receive = Some(Receive::start(&request.body()?)?);
        Ok(json!({}))
    }

    pub fn await_stream(
        &mut self,
        caller: &Caller,
        request: &mut Request,
    ) -> Result<Option<Value>, ControlError> {
        let request::Received { timeout_ms } = request.body()?;
        let receive =
            self.receive.as_ref().ok_or_else(|| ControlError::new("invalid_state", "nothing is received"))?;
        match receive.outcome() {
            Some(outcome) => stream_result(outcome).map(Some),
            None => {
                self.await_outcome(caller, Awaited::Stream, timeout_ms);
                Ok(None)
            }
        }
    }

    pub fn advance_stream(&mut self) {
        let Some(receive) = &mut self.receive else { return };
        receive.advance();
        if let Some(outcome) = receive.outcome() {
            self.settle(Awaited::Stream, &|| stream_result(outcome.clone()));
        }
    }
}

fn stream_result(outcome: Result<u64, String>) -> Result<Value, ControlError> {
    match outcome {
        Ok(size_bytes) => Ok(json!({"size_bytes": size_bytes})),
        Err(message) => Err(ControlError::new("internal", message)),
    }
}
