//! A client that asks once, over any stream.

use std::io::{ErrorKind, Read, Write};

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The text of a refusal; panics for anything else.
    pub fn refusal(&self) -> String {
        assert_eq!(self.status, 400, "{}", self.text());
        self.json()["fault_message"].as_str().unwrap().to_owned()
    }
}

pub fn send(stream: &mut impl Write, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: guest\r\nContent-Length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    stream.write_all(&[head.as_bytes(), b"\r\n", body].concat()).unwrap();
}

/// `None`: the peer ended before its answer did, or nothing came in time.
pub fn receive(stream: &mut impl Read) -> Option<Answer> {
    let mut bytes = Vec::new();
    loop {
        if let Some(answer) = parse(&bytes) {
            return Some(answer);
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(count @ 1..) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return None,
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(bytes).unwrap() else { return None };
    let named = |name: &str| head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let body = match named("transfer-encoding") {
        Some(_) => unchunk(&bytes[start..])?,
        None => {
            let length =
                named("content-length").map_or("0", |header| std::str::from_utf8(header.value).unwrap());
            bytes.get(start..start + length.parse::<usize>().unwrap())?.to_vec()
        }
    };
    Some(Answer { status: head.code.unwrap(), body })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((start, size)) = httparse::parse_chunk_size(rest).unwrap() else {
            return None;
        };
        let chunk = rest.get(start..start + size as usize + 2)?;
        body.extend_from_slice(&chunk[..size as usize]);
        rest = &rest[start + size as usize + 2..];
        if size == 0 {
            return Some(body);
        }
    }
}
