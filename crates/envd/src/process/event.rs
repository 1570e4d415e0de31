//! `ProcessEvent` as frames of a stream.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes};
use serde_json::json;

use crate::rpc;

/// Where a chunk of output came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    Stdout,
    Stderr,
    Pty,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Source::Stdout => "stdout",
            Source::Stderr => "stderr",
            Source::Pty => "pty",
        }
    }
}

/// A frame, ready to be sent to any number of subscribers.
#[derive(Clone, Debug)]
pub enum Event {
    Data(Bytes),
    End(Bytes),
}

pub fn start(pid: u32) -> Bytes {
    rpc::message(&json!({ "event": { "start": { "pid": pid } } }))
}

pub fn keepalive() -> Bytes {
    rpc::message(&json!({ "event": { "keepalive": {} } }))
}

pub fn data(source: Source, chunk: &[u8]) -> Event {
    let encoded_bytes = chunk.len().div_ceil(3) * 4;
    Event::Data(rpc::envelope(encoded_bytes + 40, |frame| {
        frame.put_slice(br#"{"event":{"data":{""#);
        frame.put_slice(source.name().as_bytes());
        frame.put_slice(br#"":""#);
        let at = frame.len();
        frame.resize(at + encoded_bytes, 0);
        BASE64_STANDARD.encode_slice(chunk, &mut frame[at..]).expect("the room is reserved");
        frame.put_slice(br#""}}}"#);
    }))
}

pub fn end(status: ExitStatus) -> Event {
    let text = describe(status);
    let mut end = json!({
        "exitCode": status.code().unwrap_or(-1),
        "exited": status.code().is_some(),
        "status": text,
    });
    if !status.success() {
        end["error"] = text.into();
    }
    Event::End(rpc::message(&json!({ "event": { "end": end } })))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {}", signal_name(signal)),
        (None, None) => "unknown".into(),
    }
}

/// The words of signal(7) that clients know from other agents.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        number => return format!("signal {number}"),
    };
    name.into()
}
