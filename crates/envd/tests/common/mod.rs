//! The real binary on loopback, and a small HTTP/1.1 client.
#![allow(dead_code, unused_imports)]

mod events;
mod http;

pub use events::{Event, Events};
pub use http::{Answer, Reader, exchange, open};

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
        let (child, port, control_port) = run(&root, cgroup.as_deref(), &options);
        let token = options.token.map(Into::into);
        let mut envd = Envd { child, port, control_port, root, cgroup, token };
        if options.init {
            let token = envd.token.take();
            let answer = envd.control("/init", &init(1, json!({ "accessToken": token })));
            assert_eq!(answer.status, 204, "{}", answer.text());
            envd.token = token;
        }
        envd
    }

    /// Kills the agent and starts it again, with the default options.
    pub fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let again = run(&self.root, self.cgroup.as_deref(), &Options::default());
        (self.child, self.port, self.control_port) = again;
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
        self.unary("process.Process", method, message, &[])
    }

    pub fn unary(&self, service: &str, method: &str, message: Value, headers: &[(&str, &str)]) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.ask("POST", &format!("/{service}/{method}"), &all, message.to_string().as_bytes())
    }

    pub fn stream(&self, method: &str, message: Value, headers: &[(&str, &str)]) -> Events {
        self.stream_of("process.Process", method, &[message], headers)
    }

    pub fn stream_of(
        &self,
        service: &str,
        method: &str,
        messages: &[Value],
        headers: &[(&str, &str)],
    ) -> Events {
        let frames: Vec<u8> = messages.iter().flat_map(envelope).collect();
        let mut all = vec![("content-type", "application/connect+json")];
        all.extend(headers);
        if let Some(token) = &self.token {
            all.push(("x-access-token", token));
        }
        let reader = open(self.port, "POST", &format!("/{service}/{method}"), &all, &frames);
        assert_eq!(reader.status, 200);
        Events::new(reader)
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
        for cgroup in self.cgroup.iter().flat_map(|cgroup| [cgroup.clone(), rehearsal(cgroup)]) {
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
            wait_until("the cgroup is empty", || fs::remove_dir(&cgroup).is_ok() || !cgroup.exists());
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Where the processes of a rehearsal are.
fn rehearsal(cgroup: &Path) -> PathBuf {
    let name = cgroup.file_name().unwrap().to_str().unwrap();
    cgroup.with_file_name(format!("{name}-rehearsal"))
}

/// The process and its two ports.
fn run(root: &Path, cgroup: Option<&Path>, options: &Options) -> (Child, u16, u16) {
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
    command.arg("--dev").arg(root).args(["--port", "0", "--control-port", "0"]).args(options.arguments);
    if let Some(cgroup) = cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    let mut child = command.env("NOT_INHERITED", "1").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ports: Vec<u16> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (child, ports[0], ports[1])
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

pub fn basic(user: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:")))
}

/// A message as a frame of a stream.
pub fn envelope(message: &Value) -> Vec<u8> {
    let body = message.to_string();
    let mut frame = vec![0];
    frame.extend((body.len() as u32).to_be_bytes());
    frame.extend(body.as_bytes());
    frame
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
