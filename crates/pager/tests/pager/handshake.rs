//! Peers that do not keep to the handshake: each is refused with a reason, and the VMM that comes after is served.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use linux_raw_sys::general::UFFD_FEATURE_EVENT_REMOVE;
use serde_json::json;

use crate::support::files::{Dir, listener, state};
use crate::support::memory::{MISSING, Memory, PAGE, send};
use crate::support::pager::{Pager, borrow};

const PAGES: usize = 16;

struct Door {
    dir: Dir,
    pager: Pager,
}

impl Door {
    fn open(peer_uid: u32) -> Self {
        let dir = Dir::new();
        let mut pager = Pager::spawn(&dir.path);
        let fds = [listener(&dir, 0), state(&dir, 0)];
        let start = json!({"op": "start", "mode": "boot", "memory_bytes": PAGES * PAGE, "tracker": "auto",
            "peer_uid": peer_uid, "listen": 0, "state": 1});
        pager.ask(start, &borrow(&fds)).unwrap();
        Self { dir, pager }
    }

    fn knock(&self) -> UnixStream {
        UnixStream::connect(self.dir.path.join("socket-0")).unwrap()
    }

    fn refused(&mut self, word: &str) {
        let reason = self.pager.failure();
        assert!(reason.contains(word), "{reason:?} does not say {word:?}");
    }

    /// A proper VMM is let in. Returns what it must keep open.
    fn serves(&mut self) -> (UnixStream, Memory, OwnedFd) {
        let (memory, uffd) = memory();
        let socket = self.knock();
        send(&socket, memory.json().as_bytes(), &[uffd.as_fd()]);
        assert_eq!(self.pager.shake_hands(std::process::id()).json["regions"], 1);
        (socket, memory, uffd)
    }
}

fn memory() -> (Memory, OwnedFd) {
    let memory = Memory::new(&[PAGES]);
    let uffd = memory.register(UFFD_FEATURE_EVENT_REMOVE, MISSING);
    (memory, uffd)
}

#[test]
fn no_descriptor() {
    let mut door = Door::open(0);
    let (memory, _uffd) = memory();
    send(&door.knock(), memory.json().as_bytes(), &[]);
    door.refused("no descriptor");
    door.serves();
}

#[test]
fn two_descriptors() {
    let mut door = Door::open(0);
    let (memory, uffd) = memory();
    send(&door.knock(), memory.json().as_bytes(), &[uffd.as_fd(), uffd.as_fd()]);
    door.refused("2 descriptors");
    let socket = door.knock();
    let json = memory.json();
    send(&socket, &json.as_bytes()[..10], &[uffd.as_fd()]);
    send(&socket, &json.as_bytes()[10..], &[uffd.as_fd()]);
    door.refused("2 descriptors");
    door.serves();
}

#[test]
fn other_descriptors() {
    let mut door = Door::open(0);
    let (memory, _uffd) = memory();
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    send(&door.knock(), memory.json().as_bytes(), &[pipe.as_fd()]);
    door.refused("no working userfaultfd");
    let file = door.dir.create("file");
    send(&door.knock(), memory.json().as_bytes(), &[file.as_fd()]);
    door.refused("no working userfaultfd");
    let socket = door.knock();
    send(&socket, memory.json().as_bytes(), &[socket.as_fd()]);
    door.refused("no working userfaultfd");
    door.serves();
}

#[test]
fn json_in_pieces_is_fine() {
    let mut door = Door::open(0);
    let (memory, uffd) = memory();
    let mut socket = door.knock();
    let json = memory.json();
    send(&socket, &json.as_bytes()[..1], &[uffd.as_fd()]);
    for byte in &json.as_bytes()[1..] {
        socket.write_all(&[*byte]).unwrap();
    }
    door.pager.event("handshake");
}

#[test]
fn too_much_json() {
    let mut door = Door::open(0);
    let (memory, uffd) = memory();
    let padded = format!("[{}{}", " ".repeat(60 * 1024), &memory.json()[1..]);
    let socket = door.knock();
    send(&socket, padded.as_bytes(), &[uffd.as_fd()]);
    door.pager.event("handshake");

    let mut door = Door::open(0);
    let mut socket = door.knock();
    send(&socket, b"[", &[uffd.as_fd()]);
    // The pager hangs up in the middle.
    let _ = socket.write_all(" ".repeat(70 * 1024).as_bytes());
    door.refused("longer than");
    door.serves();
}

#[test]
fn no_json() {
    let mut door = Door::open(0);
    let (_memory, uffd) = memory();
    for text in ["hello", "{\"a\":1}", "[1,2]", "[{]", "[\"\\ud800\"]", "\u{0}", "null", "[[[[[[[[[[[[[[[[]"]
    {
        let socket = door.knock();
        send(&socket, text.as_bytes(), &[uffd.as_fd()]);
        drop(socket);
        door.pager.failure();
    }
    send(&door.knock(), "[".repeat(40_000).as_bytes(), &[uffd.as_fd()]);
    door.refused("closed after");
    door.serves();
}

#[test]
fn wrong_regions() {
    let mut door = Door::open(0);
    let (memory, uffd) = memory();
    let (base, size) = memory.regions[0];
    let half = size / 2;
    let region = |base: usize, size: usize, offset: usize| {
        format!(r#"{{"base_host_virt_addr":{base},"size":{size},"offset":{offset},"page_size":4096}}"#)
    };
    for (json, word) in [
        (format!("[{}]", region(base + 8, size, 0)), "aligned"),
        (format!("[{}]", region(base, size - 8, 0)), "aligned"),
        (format!("[{}]", region(base, size + PAGE, 0)), "beyond the memory"),
        (format!("[{}]", region(base, size, PAGE)), "beyond the memory"),
        (format!("[{},{}]", region(base, size, 0), region(base, size, 0)), "overlap"),
        (format!("[{},{}]", region(base, half + PAGE, 0), region(base + half, half, half)), "overlap"),
        (format!("[{}]", region(base, half, 0)), "end at"),
        (format!("[{}]", region(base, size, 0).replace(":4096", ":2097152")), "page size"),
    ] {
        send(&door.knock(), json.as_bytes(), &[uffd.as_fd()]);
        door.refused(word);
    }
    door.serves();
}

#[test]
fn foreign_uid() {
    let mut door = Door::open(12345);
    let _socket = door.knock();
    door.refused("uid 0 connected, 12345 expected");
}

#[test]
fn second_connection() {
    let mut door = Door::open(0);
    let kept = door.serves();
    let _second = door.knock();
    let event = door.pager.event("failed").json;
    assert_eq!(event["serving"], true, "{event}");
    assert_eq!(kept.1.read(3), vec![0; 512], "the first is still served");
    drop(kept.0);
    door.pager.event("gone");
}

#[test]
fn silence() {
    let mut door = Door::open(0);
    let _silent = door.knock();
    door.refused("in time");
    let half = door.knock();
    send(&half, b"[{", &[]);
    door.refused("in time");
    drop(door.knock());
    door.refused("closed after 0 bytes");
    door.serves();
}

/// Its memory can be write-protected by nobody: pages come all the same, and the dump compares.
#[test]
fn missing_only_registration_is_compared() {
    let mut door = Door::open(0);
    let (_socket, memory, _uffd) = door.serves();
    memory.write_word(5, 0, 1);
    let fds = [door.dir.create("memfile"), door.dir.create("runs")];
    let result = door.pager.ask(json!({"op": "dump", "memfile": 0, "runs": 1}), &borrow(&fds)).unwrap();
    assert_eq!(result["stored_bytes"], PAGE);
    assert_eq!(door.pager.stats()["tracker"], "compare");
}

#[test]
fn requests_are_checked() {
    let dir = Dir::new();
    let mut pager = Pager::spawn(&dir.path);
    assert_eq!(pager.ask(json!({"op": "stats"}), &[]).unwrap_err()["kind"], "invalid_state");
    let start = json!({"op": "start", "mode": "boot", "memory_bytes": 65536, "tracker": "auto", "peer_uid": 0,
        "listen": 0, "state": 1});
    let mut refuse = |change: &dyn Fn(&mut serde_json::Value), name: &str| {
        let mut request = start.clone();
        change(&mut request);
        let fds = [listener(&dir, 0), state(&dir, 0), dir.create("header")];
        let error = pager.ask(request, &borrow(&fds)).unwrap_err();
        assert_eq!(error["kind"], "invalid_request", "{name}: {error}");
        std::fs::remove_file(dir.path.join("socket-0")).unwrap();
    };
    refuse(&|request| request["memory_bytes"] = json!(4097), "odd size");
    refuse(&|request| request["memory_bytes"] = json!(0), "no size");
    refuse(&|request| request["memory_bytes"] = json!(1u64 << 60), "absurd size");
    refuse(&|request| request["memory_bytes"] = json!("4096"), "text");
    refuse(&|request| request["mode"] = json!("other"), "mode");
    refuse(&|request| request["tracker"] = json!("other"), "tracker");
    refuse(&|request| request["listen"] = json!(9), "no such descriptor");
    refuse(&|request| request["mode"] = json!("restore"), "no header");
    refuse(&|request| request["header"] = json!(2), "boot with a header");
    refuse(
        &|request| {
            request["mode"] = json!("restore");
            request["header"] = json!(2);
        },
        "empty header",
    );
}
