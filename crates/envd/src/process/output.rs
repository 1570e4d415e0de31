//! From a process's pipes to its subscribers.
//!
//! A chunk goes to everyone present before the next is read: a slow subscriber slows the process down and loses
//! nothing. With nobody present the output is thrown away, so the process never waits for a missing client.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

use bytes::BytesMut;
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep_until};

use super::event::{self, Source};
use super::start::{Config, adopted};
use super::table::Process;
use crate::agent::Agent;
use crate::rpc::RpcError;

const CHUNK_BYTES: usize = 32 * 1024;
/// Output that a killed process left in its pipes is still delivered up to this; others may go on writing to them.
const LEFTOVER_CHUNKS: usize = 8;

/// The two pipes and the exit of a process.
pub struct Output {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    exit: oneshot::Receiver<ExitStatus>,
    limit: Option<JoinHandle<()>>,
}

/// Takes a new child over: from here on it is reaped when it exits and killed at its deadline.
pub fn adopt(
    mut child: Child,
    config: Config,
    tag: Option<String>,
    deadline: Option<Instant>,
) -> Result<(Arc<Process>, Output), RpcError> {
    let process = adopted(&mut child, config, tag)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (sender, exit) = oneshot::channel();
    let reaped = process.clone();
    tokio::spawn(async move {
        let status = child.wait().await;
        reaped.set_reaped();
        if let Ok(status) = status {
            let _ = sender.send(status);
        }
    });
    // Beside the others: it holds while output waits for a client, and after the leader's exit.
    let limit = deadline.map(|deadline| {
        let limited = process.clone();
        tokio::spawn(async move {
            sleep_until(deadline).await;
            limited.kill_group();
        })
    });
    Ok((process, Output { stdout, stderr, exit, limit }))
}

/// Runs until the process has ended and everyone who listened knows it.
pub async fn pump(agent: Arc<Agent>, process: Arc<Process>, mut output: Output) {
    let status = drain(&process, &mut output).await;
    let status = match status {
        Some(status) => status,
        None => output.exit.await.unwrap_or_else(|_| lost()),
    };
    // Input that is still being written holds it; it goes when the process is forgotten.
    if let Ok(mut stdin) = process.stdin.try_lock() {
        stdin.take();
    }
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

/// Delivers until both pipes are at their end, or the process was killed on request and is gone.
async fn drain(process: &Process, output: &mut Output) -> Option<ExitStatus> {
    let (mut out, mut err) = (BytesMut::new(), BytesMut::new());
    let mut status = None;
    let mut abandoned = false;
    while output.stdout.is_some() || output.stderr.is_some() {
        let source = tokio::select! {
            () = fill(&mut output.stdout, &mut out) => Source::Stdout,
            () = fill(&mut output.stderr, &mut err) => Source::Stderr,
            exit = &mut output.exit, if status.is_none() => {
                status = Some(exit.unwrap_or_else(|_| lost()));
                if abandoned { break } else { continue }
            }
            () = process.abandon.notified(), if !abandoned => {
                abandoned = true;
                if status.is_some() { break } else { continue }
            }
        };
        let chunk = if source == Source::Stdout { &mut out } else { &mut err };
        deliver(process, source, chunk).await;
    }
    leftovers(process, Source::Stdout, output.stdout.take()).await;
    leftovers(process, Source::Stderr, output.stderr.take()).await;
    status
}

/// Waits for bytes of a pipe; sets it to None at its end. Never ready without a pipe.
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
    for _ in 0..LEFTOVER_CHUNKS {
        tokio::select! {
            biased;
            () = unconstrained(fill(&mut pipe, &mut buffer)) => deliver(process, source, &mut buffer).await,
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
