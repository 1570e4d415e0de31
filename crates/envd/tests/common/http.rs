//! HTTP/1.1 as far as the tests need it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// An answer whose body is read bit by bit. Dropping it closes the connection.
pub struct Reader {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    stream: BufReader<TcpStream>,
    /// Bytes left of a body with a known length; None: chunked.
    left: Option<u64>,
    done: bool,
}

/// Sends a request and reads the head of its answer.
pub fn open(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reader {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: guest\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    // The answer may come before the whole body is taken.
    let _ = stream.write_all(body);
    Reader::new(stream, method)
}

pub fn exchange(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    open(port, method, path, headers, body).read()
}

impl Reader {
    pub fn new(stream: TcpStream, method: &str) -> Reader {
        let mut stream = BufReader::with_capacity(64 * 1024, stream);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(stream.read_line(&mut line).unwrap() > 0, "no answer");
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_string());
        }
        let status: u16 = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
            .collect();
        let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let left = (!chunked).then(|| length.map_or(0, |(_, value)| value.parse().unwrap()));
        let done = method == "HEAD" || status == 204 || left == Some(0);
        Reader { status, headers, stream, left, done }
    }

    /// Some bytes of the body; None at its end, or when the connection broke off (then `complete` is false).
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        if self.done {
            return None;
        }
        match self.left {
            Some(left) => {
                let mut bytes = vec![0; left.min(256 * 1024) as usize];
                let count = self.stream.read(&mut bytes).ok().filter(|count| *count > 0)?;
                bytes.truncate(count);
                self.left = Some(left - count as u64);
                self.done = left == count as u64;
                Some(bytes)
            }
            None => self.chunk_of_chunked(),
        }
    }

    fn chunk_of_chunked(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut bytes = vec![0; size + 2];
        self.stream.read_exact(&mut bytes).ok()?;
        bytes.truncate(size);
        self.done = size == 0;
        (size > 0).then_some(bytes)
    }

    pub fn complete(&self) -> bool {
        self.done
    }

    pub fn read(mut self) -> Answer {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk() {
            body.extend(chunk);
        }
        assert!(self.done, "the answer was cut off");
        Answer { status: self.status, headers: self.headers, body }
    }
}
