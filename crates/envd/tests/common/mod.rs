//! The real binary on loopback, and a small HTTP/1.1 client.
#![allow(dead_code)]

mod http;

pub use http::{Answer, Reader, exchange, open};

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// A guest agent with a root of its own for identity files; ends with all its processes when dropped.
pub struct Envd {
    pub child: Child,
    pub port: u16,
    pub control_port: u16,
    pub root: PathBuf,
    pub cgroup: Option<PathBuf>,
    pub token: Option<String>,
}

pub struct Options<'a> {
    /// `/init` is done, with this token.
    pub token: Option<&'a str>,
    pub init: bool,
    pub arguments: &'a [&'a str],
    /// Runs in a mount namespace of its own with a disk of this size at `{root}/small`.
    pub small_disk_bytes: Option<u64>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { token: None, init: true, arguments: &[], small_disk_bytes: None }
    }
}

impl Envd {
    pub fn start(name: &str) -> Envd {
        Envd::with(name, Options::default())
    }

    pub fn with(name: &str, options: Options) -> Envd {
        let root = std::env::temp_dir().join(format!("thaw-envd-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("small")).unwrap();
        let cgroup = cgroup2().map(|mount| mount.join(root.file_name().unwrap()));
        let binary = env!("CARGO_BIN_EXE_thaw-envd");
        let mut command = match options.small_disk_bytes {
            None => Command::new(binary),
            Some(size) => {
                let script = "mount -t tmpfs -o size=\"$1\" none \"$2\" && shift 2 && exec \"$@\"";
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-ec", script, "sh", &size.to_string()]);
                command.arg(root.join("small")).arg(binary);
                command
            }
        };
        command.arg("--dev").arg(&root).args(["--port", "0", "--control-port", "0"]).args(options.arguments);
        if let Some(cgroup) = &cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        let mut child = command.env("NOT_INHERITED", "1").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ports: Vec<u16> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let token = options.token.map(Into::into);
        let mut envd = Envd { child, port: ports[0], control_port: ports[1], root, cgroup, token };
        if options.init {
            let token = envd.token.take();
            let answer = envd.control("/init", &init(1, json!({ "accessToken": token })));
            assert_eq!(answer.status, 204, "{}", answer.text());
            envd.token = token;
        }
        envd
    }

    pub fn path(&self, name: &str) -> String {
        self.root.join(name).to_str().unwrap().to_string()
    }

    pub fn control(&self, path: &str, body: &Value) -> Answer {
        exchange(self.control_port, "POST", path, &[], body.to_string().as_bytes())
    }

    /// A request on the guest port, with the token.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut headers = headers.to_vec();
        if let Some(token) = &self.token {
            headers.push(("x-access-token", token));
        }
        exchange(self.port, method, path, &headers, body)
    }

    pub fn call(&self, method: &str, message: Value) -> Answer {
        let path = format!("/process.Process/{method}");
        self.ask("POST", &path, &[("content-type", "application/json")], message.to_string().as_bytes())
    }

    pub fn stream(&self, method: &str, message: Value, headers: &[(&str, &str)]) -> Events {
        let body = message.to_string();
        let mut frame = vec![0];
        frame.extend((body.len() as u32).to_be_bytes());
        frame.extend(body.as_bytes());
        let mut all = vec![("content-type", "application/connect+json")];
        all.extend(headers);
        if let Some(token) = &self.token {
            all.push(("x-access-token", token));
        }
        let reader = open(self.port, "POST", &format!("/process.Process/{method}"), &all, &frame);
        assert_eq!(reader.status, 200);
        Events { reader, buffer: VecDeque::new() }
    }

    /// A shell script without standard input.
    pub fn shell(&self, script: &str, headers: &[(&str, &str)]) -> Events {
        self.stream("Start", shell(script, false), headers)
    }

    pub fn resident_bytes_max(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Envd {
    fn drop(&mut self) {
        if self.cgroup.is_none() {
            kill_groups_of_children(self.child.id());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(cgroup) = &self.cgroup {
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
            wait_until("the cgroup is empty", || fs::remove_dir(cgroup).is_ok() || !cgroup.exists());
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn kill_groups_of_children(parent: u32) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let ppid = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        if let (Some(ppid), Some(pid)) = (ppid, rustix::process::Pid::from_raw(pid))
            && ppid == parent
        {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

pub fn shell(script: &str, stdin: bool) -> Value {
    json!({ "process": { "cmd": "/bin/sh", "args": ["-c", script], "cwd": "/" }, "stdin": stdin })
}

/// The body of `/init`, with `more` on top.
pub fn init(counter: u64, more: Value) -> Value {
    let mut body = json!({
        "counter": counter,
        "timestamp": "2026-01-02T03:04:05.678901234Z",
        "entropy": BASE64_STANDARD.encode([7u8; 64]),
        "sandboxId": "sandbox1",
        "templateId": "template1",
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(fields[1]))
    });
    mount.filter(|mount| {
        let probe = mount.join(format!("thaw-probe-{}", std::process::id()));
        let made = fs::create_dir(&probe).is_ok() && probe.join("cgroup.freeze").exists();
        let _ = fs::remove_dir(&probe);
        made
    })
}

pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A zombie is gone as well: it runs nothing.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

pub fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

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
    fn fill(&mut self, length: usize) -> bool {
        while self.buffer.len() < length {
            match self.reader.chunk() {
                Some(chunk) => self.buffer.extend(chunk),
                None => return false,
            }
        }
        true
    }

    /// None: the connection ended.
    pub fn next_event(&mut self) -> Option<Event> {
        if !self.fill(5) {
            return None;
        }
        let head: Vec<u8> = self.buffer.drain(..5).collect();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        assert!(self.fill(length), "a frame was cut off");
        let frame: Vec<u8> = self.buffer.drain(..length).collect();
        let message: Value = serde_json::from_slice(&frame).unwrap();
        if head[0] == 2 {
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
