//! Reading a stream of process events.

use std::collections::VecDeque;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::Reader;

/// What a stream said, as its client takes it in.
pub struct Events {
    reader: Reader,
    buffer: VecDeque<u8>,
}

#[derive(Debug, PartialEq)]
pub enum Event {
    Start(u32),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Pty(Vec<u8>),
    Keepalive,
    End(Value),
    /// The frame that ends a stream.
    Last(Value),
}

/// A stream as a whole.
#[derive(Debug, Default)]
pub struct Outcome {
    pub pid: u32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub pty: Vec<u8>,
    pub end: Value,
    /// The error of the last frame, or null.
    pub error: Value,
}

impl Outcome {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Events {
    pub fn new(reader: Reader) -> Events {
        Events { reader, buffer: VecDeque::new() }
    }

    fn fill(&mut self, length: usize) -> bool {
        while self.buffer.len() < length {
            match self.reader.chunk() {
                Some(chunk) => self.buffer.extend(chunk),
                None => return false,
            }
        }
        true
    }

    /// A frame's flags and message; None: the connection ended.
    pub fn next_frame(&mut self) -> Option<(u8, Value)> {
        if !self.fill(5) {
            return None;
        }
        let head: Vec<u8> = self.buffer.drain(..5).collect();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        assert!(self.fill(length), "a frame was cut off");
        let frame: Vec<u8> = self.buffer.drain(..length).collect();
        Some((head[0], serde_json::from_slice(&frame).unwrap()))
    }

    /// None: the connection ended.
    pub fn next_event(&mut self) -> Option<Event> {
        let (flags, message) = self.next_frame()?;
        if flags == 2 {
            return Some(Event::Last(message));
        }
        let event = &message["event"];
        let bytes = |value: &Value| BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap();
        Some(if let Some(pid) = event["start"]["pid"].as_u64() {
            Event::Start(pid as u32)
        } else if event["data"]["stdout"].is_string() {
            Event::Stdout(bytes(&event["data"]["stdout"]))
        } else if event["data"]["stderr"].is_string() {
            Event::Stderr(bytes(&event["data"]["stderr"]))
        } else if event["data"]["pty"].is_string() {
            Event::Pty(bytes(&event["data"]["pty"]))
        } else if event["end"].is_object() {
            Event::End(event["end"].clone())
        } else {
            assert!(event["keepalive"].is_object(), "unknown event {message}");
            Event::Keepalive
        })
    }

    pub fn pid(&mut self) -> u32 {
        match self.next_event() {
            Some(Event::Start(pid)) => pid,
            other => panic!("not a start: {other:?}"),
        }
    }

    /// Reads on to the end, checking the order of events. `pid` may have been read before.
    pub fn finish(mut self) -> Outcome {
        let mut outcome = Outcome::default();
        while let Some(event) = self.next_event() {
            let ended = outcome.end.is_object();
            match event {
                Event::Start(pid) => outcome.pid = pid,
                Event::Stdout(bytes) if !ended => {
                    assert!(bytes.len() <= 32 * 1024);
                    outcome.stdout.extend(bytes);
                }
                Event::Stderr(bytes) if !ended => outcome.stderr.extend(bytes),
                Event::Pty(bytes) if !ended => outcome.pty.extend(bytes),
                Event::End(end) if !ended => outcome.end = end,
                Event::Keepalive => {}
                Event::Last(last) => {
                    outcome.error = last["error"].clone();
                    assert!(self.next_event().is_none(), "something follows the end of the stream");
                    return outcome;
                }
                event => panic!("after the end: {event:?}"),
            }
        }
        panic!("the stream was cut off");
    }
}
