//! The guest agent, asked over the network.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::http::{self, Answer};
use super::namespace::Namespace;

pub const CONTROL_PORT: u16 = 49982;
pub const GUEST_PORT: u16 = 49983;
pub const STREAM: (&str, &str) = ("Content-Type", "application/connect+json");
pub const START: &str = "/process.Process/Start";
const CLOSE: (&str, &str) = ("Connection", "close");

/// What a command said, and its end: the exit code, or why there is none.
#[derive(Debug, PartialEq)]
pub struct Ran {
    pub stdout: String,
    pub stderr: String,
    pub end: Result<i64, String>,
}

pub fn ask(namespace: &Namespace, port: u16, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let method = if body.is_empty() { "GET" } else { "POST" };
    let mut stream = namespace.connect(port);
    http::send(&mut stream, method, path, &[headers, &[CLOSE]].concat(), body);
    http::receive(&mut stream).expect("an answer")
}

pub fn control(namespace: &Namespace, path: &str, body: Value) -> Answer {
    ask(namespace, CONTROL_PORT, path, &[], body.to_string().as_bytes())
}

/// An identity whose entropy is `byte` 64 times.
pub fn identity(counter: u64, byte: u8) -> Value {
    json!({
        "counter": counter,
        "timestamp": "2026-01-02T03:04:05.678Z",
        "entropy": BASE64_STANDARD.encode([byte; 64]),
        "sandboxId": format!("sandbox{counter}"),
        "templateId": "template",
        "hostname": format!("guest{counter}"),
        "machineId": format!("{counter:032x}"),
    })
}

pub fn init(namespace: &Namespace, counter: u64, byte: u8) {
    assert_eq!(control(namespace, "/init", identity(counter, byte)).status, 204);
}

pub fn run(namespace: &Namespace, words: &[&str]) -> Ran {
    run_with(namespace, words, &[])
}

pub fn run_with(namespace: &Namespace, words: &[&str], headers: &[(&str, &str)]) -> Ran {
    let answer = ask(namespace, GUEST_PORT, START, &[headers, &[STREAM]].concat(), &request(words));
    assert_eq!(answer.status, 200, "{}", answer.text());
    ran(&answer.body)
}

/// Standard output of a command that must succeed.
pub fn output(namespace: &Namespace, words: &[&str]) -> String {
    let ran = run(namespace, words);
    assert_eq!((&ran.end, ran.stderr.as_str()), (&Ok(0), ""), "{words:?}");
    ran.stdout.trim_end().to_owned()
}

pub fn script(namespace: &Namespace, script: &str) -> String {
    output(namespace, &["sh", "-c", script])
}

pub fn request(words: &[&str]) -> Vec<u8> {
    let message = json!({ "process": { "cmd": words[0], "args": words[1..] } }).to_string();
    [&[0], (message.len() as u32).to_be_bytes().as_slice(), message.as_bytes()].concat()
}

fn ran(mut frames: &[u8]) -> Ran {
    let mut ran = Ran { stdout: String::new(), stderr: String::new(), end: Err("no end".into()) };
    while let [flags, a, b, c, d, rest @ ..] = frames {
        let (message, rest) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        let message: Value = serde_json::from_slice(message).unwrap();
        for (stream, text) in [("stdout", &mut ran.stdout), ("stderr", &mut ran.stderr)] {
            if let Some(encoded) = message["event"]["data"][stream].as_str() {
                text.push_str(&String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap());
            }
        }
        if let Some(code) = message["event"]["end"]["exitCode"].as_i64() {
            ran.end = Ok(code);
        }
        if let Some(error) = message["error"]["message"].as_str() {
            assert_eq!(*flags, 2);
            ran.end = Err(error.to_owned());
        }
        frames = rest;
    }
    ran
}
