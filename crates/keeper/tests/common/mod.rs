//! A keeper on a folder of its own, and a client for it. Needs root, as keepers do.

#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub const UID: u32 = 712_345;

pub struct TestKeeper {
    pub dir: PathBuf,
    pub process: Child,
    pub client: Client,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl TestKeeper {
    pub fn start() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("thaw-keeper-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (process, client) = spawn_keeper(&dir);
        Self { dir, process, client }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// `argv` as the test user in the host's view.
    pub fn spawn(&mut self, role: &str, argv: &[&str]) -> u32 {
        let request =
            json!({"op": "spawn", "role": role, "argv": argv, "uid": UID, "gid": UID, "root": "host"});
        pid_of(&self.client.ok(request))
    }

    /// This test program as a child that serves the control channel (see `stand_in_child`).
    pub fn spawn_stand_in(&mut self, role: &str, caps: &[&str]) -> u32 {
        let program = self.dir.join("stand-in");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let request = json!({"op": "spawn", "role": role, "control": true, "uid": UID, "gid": UID, "root": "host",
            "argv": [program, "--exact", "stand_in_child"], "caps": caps, "env": {"STAND_IN": "1"}});
        pid_of(&self.client.ok(request))
    }
}

pub fn pid_of(result: &Value) -> u32 {
    u32::try_from(result["pid"].as_u64().unwrap()).unwrap()
}

pub fn spawn_keeper(dir: &Path) -> (Child, Client) {
    let process =
        Command::new(env!("CARGO_BIN_EXE_thaw-keeper")).arg(dir).stdin(Stdio::null()).spawn().unwrap();
    let client = Client::new(await_socket(&dir.join("keeper.sock")));
    (process, client)
}

fn await_socket(path: &Path) -> UnixStream {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "no keeper: {error}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Drop for TestKeeper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub struct Client {
    pub stream: UnixStream,
    reader: BufReader<UnixStream>,
    /// Read while something else was waited for.
    unread: Vec<Value>,
    last_id: u64,
}

impl Client {
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader, unread: Vec::new(), last_id: 0 }
    }

    pub fn begin(&mut self, mut request: Value) -> u64 {
        self.last_id += 1;
        request["id"] = json!(self.last_id);
        writeln!(self.stream, "{request}").unwrap();
        self.last_id
    }

    pub fn call(&mut self, request: Value) -> Value {
        let id = self.begin(request);
        self.answer(id)
    }

    pub fn answer(&mut self, id: u64) -> Value {
        if let Some(index) = self.unread.iter().position(|frame| frame["id"] == json!(id)) {
            return self.unread.remove(index);
        }
        loop {
            let frame = self.frame();
            if frame["id"] == json!(id) {
                return frame;
            }
            self.unread.push(frame);
        }
    }

    pub fn ok(&mut self, request: Value) -> Value {
        let text = request.to_string();
        let mut frame = self.call(request);
        assert_eq!(frame["ok"], true, "{text}: {frame}");
        frame["result"].take()
    }

    pub fn kind_of_error(&mut self, request: Value) -> String {
        let frame = self.call(request);
        assert_eq!(frame["ok"], false, "{frame}");
        frame["error"]["kind"].as_str().unwrap().to_owned()
    }

    pub fn event(&mut self) -> Value {
        let index = self.unread.iter().position(|frame| frame["event"].is_string());
        match index {
            Some(index) => self.unread.remove(index),
            None => self.frame(),
        }
    }

    pub fn frame(&mut self) -> Value {
        let mut line = String::new();
        assert_ne!(self.reader.read_line(&mut line).unwrap(), 0, "the keeper hung up");
        serde_json::from_str(&line).unwrap()
    }
}

pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit_once(')').unwrap().1.trim_start().starts_with(['Z', 'X'])
}

pub fn await_gone(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "process {pid} goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A line of /proc/PID/status.
pub fn status_of(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
    line.split_once(':').unwrap().1.split_whitespace().collect::<Vec<_>>().join(" ")
}
