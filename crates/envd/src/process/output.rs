//! From a process's pipes or terminal to its subscribers.
//!
//! A chunk goes to everyone present before the next is read: a slow subscriber slows the process down and loses
//! nothing. With nobody present the output is thrown away, so the process never waits for a missing client.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep, sleep_until};

use super::event::{self, Source};
use super::launch::Launched;
use super::start::Config;
use super::table::Process;
use crate::agent::Agent;
use crate::readable::readable;
use crate::task;

const CHUNK_BYTES: usize = 32 * 1024;
/// Output that is left when a process was killed, or its terminal's leader is gone, is still delivered up to this:
/// others may go on writing.
const LEFTOVER_BYTES: usize = 256 * 1024;
/// The kernel hands on what was written to a terminal a little later.
const TERMINAL_QUIET: Duration = Duration::from_millis(250);

/// The pipes, or the terminal, and the exit of a process.
pub struct Output {
    /// Standard output, or what the terminal shows.
    main: Option<Receiver>,
    main_source: Source,
    stderr: Option<Receiver>,
    exit: oneshot::Receiver<ExitStatus>,
    limit: Option<JoinHandle<()>>,
}

/// Takes a new child over: from here on it is reaped when it exits and killed at its deadline.
pub fn adopt(
    launched: Launched,
    config: Config,
    tag: Option<String>,
    deadline: Option<Instant>,
) -> (Arc<Process>, Output) {
    let Launched { child, input, output, stderr, terminal } = launched;
    let main_source = if terminal.is_some() { Source::Pty } else { Source::Stdout };
    let process = Process::new(child.pid, config, tag, input, terminal);
    let (sender, exit) = oneshot::channel();
    let reaped = process.clone();
    task::spawn(async move {
        let status = reap(child.pidfd).await;
        reaped.set_reaped();
        if let Ok(status) = status {
            let _ = sender.send(status);
        }
    });
    // Beside the others: it holds while output waits for a client, and after the leader's exit.
    let limit = deadline.map(|deadline| {
        let limited = process.clone();
        task::spawn(async move {
            sleep_until(deadline).await;
            limited.kill_group();
        })
    });
    (process, Output { main: Some(output), main_source, stderr, exit, limit })
}

/// Waits until the process has exited.
async fn reap(pidfd: OwnedFd) -> io::Result<ExitStatus> {
    let pidfd = readable(Arc::new(pidfd))?;
    let _exited = pidfd.readable().await?;
    let status = waitid(WaitId::PidFd(pidfd.get_ref().as_fd()), WaitIdOptions::EXITED)?;
    let status = status.ok_or(io::ErrorKind::WouldBlock)?;
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::from_raw(code << 8),
        (None, Some(signal)) => ExitStatus::from_raw(signal),
        (None, None) => lost(),
    })
}

/// Runs until the process has ended and everyone who listened knows it.
pub async fn pump(agent: Arc<Agent>, process: Arc<Process>, mut output: Output) {
    let status = drain(&process, &mut output).await;
    let status = match status {
        Some(status) => status,
        None => output.exit.await.unwrap_or_else(|_| lost()),
    };
    // Input that is still being written holds it; it goes when the process is forgotten.
    if let Ok(mut input) = process.input.try_lock() {
        input.take();
    }
    process.terminal.lock().unwrap().take();
    if let Some(limit) = output.limit {
        limit.abort();
    }
    let event = event::end(status);
    let listeners = process.end(event.clone());
    agent.processes.retire(&process);
    for listener in listeners {
        let _ = listener.send(event.clone()).await;
    }
}

/// Delivers until the output is at its end, or the process was killed on request and is gone.
async fn drain(process: &Process, output: &mut Output) -> Option<ExitStatus> {
    let (mut out, mut err) = (BytesMut::new(), BytesMut::new());
    let mut status = None;
    let mut abandoned = false;
    while output.main.is_some() || output.stderr.is_some() {
        let is_main = tokio::select! {
            () = fill(&mut output.main, &mut out) => true,
            () = fill(&mut output.stderr, &mut err) => false,
            exit = &mut output.exit, if status.is_none() => {
                status = Some(exit.unwrap_or_else(|_| lost()));
                if abandoned { break }
                if process.has_terminal { last_words(process, &mut output.main, &mut out).await }
                continue;
            }
            () = process.abandon.notified(), if !abandoned => {
                abandoned = true;
                if status.is_some() { break } else { continue }
            }
        };
        match is_main {
            true => deliver(process, output.main_source, &mut out).await,
            false => deliver(process, Source::Stderr, &mut err).await,
        }
    }
    leftovers(process, output.main_source, output.main.take()).await;
    leftovers(process, Source::Stderr, output.stderr.take()).await;
    status
}

/// What a terminal shows after the exit of its leader: to its end, or, where others hold it open, until they are
/// silent. They are hung up on.
async fn last_words(process: &Process, terminal: &mut Option<Receiver>, chunk: &mut BytesMut) {
    let mut left = LEFTOVER_BYTES;
    while terminal.is_some() && left > 0 {
        tokio::select! {
            () = fill(terminal, chunk) => {
                left = left.saturating_sub(chunk.len());
                deliver(process, Source::Pty, chunk).await;
            }
            () = sleep(TERMINAL_QUIET) => break,
        }
    }
    *terminal = None;
}

/// Waits for bytes of a pipe; sets it to None at its end, which a terminal tells by an error. Never ready without a pipe.
async fn fill(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut BytesMut) {
    let Some(open) = pipe else { return std::future::pending().await };
    buffer.reserve(CHUNK_BYTES);
    let read = open.take(CHUNK_BYTES as u64).read_buf(buffer).await;
    if matches!(read, Ok(0) | Err(_)) {
        *pipe = None;
    }
}

/// What can be read of a pipe without waiting.
async fn leftovers(process: &Process, source: Source, pipe: Option<impl AsyncRead + Unpin>) {
    let mut pipe = pipe;
    let mut buffer = BytesMut::new();
    let mut left = LEFTOVER_BYTES;
    while pipe.is_some() && left > 0 {
        tokio::select! {
            biased;
            () = unconstrained(fill(&mut pipe, &mut buffer)) => {
                left = left.saturating_sub(buffer.len());
                deliver(process, source, &mut buffer).await;
            }
            () = std::future::ready(()) => return,
        }
    }
}

async fn deliver(process: &Process, source: Source, chunk: &mut BytesMut) {
    let listeners = if chunk.is_empty() { Vec::new() } else { process.listeners() };
    if !listeners.is_empty() {
        let event = event::data(source, chunk);
        let mut full = Vec::new();
        for listener in listeners {
            match listener.try_send(event.clone()) {
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(_)) => full.push(listener),
            }
        }
        for listener in full {
            // Fails at once when the subscriber leaves.
            let _ = listener.send(event.clone()).await;
        }
    }
    chunk.clear();
}

/// The status of a process that could not be waited for.
fn lost() -> ExitStatus {
    ExitStatus::from_raw(255 << 8)
}

/// For `SendSignal`: a deadly signal also ends the waiting for output that the process's children may hold open.
pub fn signal(process: &Process, signal: Signal) -> rustix::io::Result<()> {
    process.signal(signal)?;
    process.abandon.notify_one();
    Ok(())
}
