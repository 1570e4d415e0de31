//! One host agent's connection: bytes in, lines out; bytes out kept until the socket takes them.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

const LINE_BYTES_MAX: usize = 1 << 20;
const UNSENT_BYTES_MAX: usize = 16 << 20;
const READ_BYTES: usize = 64 << 10;

pub struct Connection {
    pub stream: UnixStream,
    unread: Vec<u8>,
    unsent: Vec<u8>,
}

/// What reading gave besides lines.
#[derive(Debug, PartialEq)]
pub enum Input {
    Open,
    Closed,
    /// A line longer than allowed: what follows cannot be understood.
    Overlong,
}

impl Connection {
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, unread: Vec::new(), unsent: Vec::new() })
    }

    pub fn wants_write(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Reads what there is; whole lines are appended to `lines`.
    pub fn read(&mut self, lines: &mut Vec<Vec<u8>>) -> Input {
        let mut chunk = vec![0; READ_BYTES];
        match self.stream.read(&mut chunk) {
            Ok(0) => return Input::Closed,
            Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
            Err(error) if is_later(&error) => return Input::Open,
            Err(_) => return Input::Closed,
        }
        let Some(end) = self.unread.iter().rposition(|byte| *byte == b'\n') else {
            return if self.unread.len() > LINE_BYTES_MAX { Input::Overlong } else { Input::Open };
        };
        let rest = self.unread.split_off(end + 1);
        let whole = std::mem::replace(&mut self.unread, rest);
        let found = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.extend(found.map(<[u8]>::to_vec));
        Input::Open
    }

    /// Queues a frame; false when the peer has not read for so long that it must go.
    pub fn send(&mut self, frame: &Value) -> bool {
        self.unsent.extend_from_slice(frame.to_string().as_bytes());
        self.unsent.push(b'\n');
        self.flush() && self.unsent.len() <= UNSENT_BYTES_MAX
    }

    /// Writes what the socket takes; false when it is broken.
    pub fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return false,
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if is_later(&error) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// The last words before leaving: waits briefly for a slow reader.
    pub fn finish(mut self) {
        let _ = self.stream.set_nonblocking(false);
        let _ = self.stream.set_write_timeout(Some(std::time::Duration::from_secs(1)));
        self.flush();
    }
}

pub fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
