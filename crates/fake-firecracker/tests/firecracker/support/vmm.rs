//! The program under test, killed when dropped.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::folder::Folder;
use super::http::{self, Answer};
use super::namespace::Namespace;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_fake-firecracker");
pub const MEMORY_MIB: u64 = 32;
pub const MEMORY_BYTES: u64 = MEMORY_MIB << 20;
/// Longer than anything takes here.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// What hangs has not answered by then.
pub const HANGS: Duration = Duration::from_millis(300);

pub struct Vmm {
    pub child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Vmm {
    /// Runs in `folder`, under a name of its own, in `namespace` if one is given.
    pub fn spawn(folder: &Folder, name: &str, namespace: Option<&Namespace>) -> Vmm {
        Vmm::spawn_with(folder, name, namespace, &[])
    }

    pub fn spawn_with(folder: &Folder, name: &str, namespace: Option<&Namespace>, args: &[&str]) -> Vmm {
        let (socket, log) = (folder.file(&format!("{name}.sock")), folder.file(&format!("{name}.log")));
        let mut command = match namespace {
            None => Command::new(PROGRAM),
            Some(namespace) => {
                // `ip` becomes the program it is told to run.
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &namespace.name, PROGRAM]);
                command
            }
        };
        let child = command
            .arg("--api-sock")
            .arg(&socket)
            .args(args)
            .current_dir(folder)
            .stdout(File::create(&log).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut vmm = Vmm { child, socket, log };
        wait_until("the API answers", || UnixStream::connect(&vmm.socket).is_ok() || vmm.exited().is_some());
        vmm
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// `None`: no answer within `limit`.
    pub fn ask_within(&self, limit: Duration, method: &str, path: &str, body: &str) -> Option<Answer> {
        let mut stream = self.connect();
        stream.set_read_timeout(Some(limit)).unwrap();
        http::send(&mut stream, method, path, &[], body.as_bytes());
        http::receive(&mut stream)
    }

    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let answer = self.ask_within(PATIENCE, method, path, &body.to_string());
        answer.unwrap_or_else(|| panic!("no answer to {method} {path}\n{}", self.log()))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask_within(PATIENCE, "GET", path, "")
            .unwrap_or_else(|| panic!("no answer to {path}\n{}", self.log()))
    }

    pub fn put(&self, path: &str, body: Value) -> Answer {
        self.ask("PUT", path, &body)
    }

    /// A call that must be done.
    pub fn tell(&self, method: &str, path: &str, body: Value) {
        let answer = self.ask(method, path, &body);
        assert_eq!(answer.status, 204, "{method} {path}: {}", answer.text());
    }

    pub fn state(&self) -> String {
        self.get("/").json()["state"].as_str().unwrap().to_owned()
    }

    /// Kernel, memory and root drive.
    pub fn configure(&self) {
        let machine = json!({ "vcpu_count": 1, "mem_size_mib": MEMORY_MIB, "track_dirty_pages": true });
        self.tell("PUT", "/machine-config", machine);
        self.tell("PUT", "/boot-source", json!({ "kernel_image_path": "vmlinux" }));
        self.tell("PUT", "/drives/rootfs", drive("rootfs", "root.img"));
    }

    pub fn configure_network(&self, tap: &str) {
        self.tell("PUT", "/network-interfaces/eth0", json!({ "iface_id": "eth0", "host_dev_name": tap }));
    }

    pub fn start(&self) {
        self.tell("PUT", "/actions", json!({ "action_type": "InstanceStart" }));
    }

    pub fn set_paused(&self, paused: bool) {
        self.tell("PATCH", "/vm", json!({ "state": if paused { "Paused" } else { "Resumed" } }));
    }

    /// Pauses and writes `name` and `name.mem`.
    pub fn snapshot(&self, kind: &str, name: &str) {
        self.set_paused(true);
        self.tell("PUT", "/snapshot/create", create(kind, name));
    }

    pub fn exited(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }

    /// The code it ends with by itself.
    pub fn exit_code(&mut self) -> i32 {
        wait_until("it ends", || self.exited().is_some());
        self.exited().unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Ends it, and gives back its socket's name for the next one.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_file(&self.socket).unwrap();
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn drive(id: &str, path: &str) -> Value {
    json!({ "drive_id": id, "is_root_device": true, "path_on_host": path })
}

pub fn create(kind: &str, name: &str) -> Value {
    json!({ "snapshot_type": kind, "snapshot_path": name, "mem_file_path": format!("{name}.mem") })
}

/// A body of snapshot/load: `kind` is `File` (then `at` is a snapshot's name) or `Uffd` (then a pager's socket).
pub fn load(name: &str, kind: &str, at: &str) -> Value {
    let path = if kind == "File" { format!("{at}.mem") } else { at.to_owned() };
    json!({
        "snapshot_path": name,
        "mem_backend": { "backend_type": kind, "backend_path": path },
        "track_dirty_pages": true,
        "resume_vm": true,
    })
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}
