//! The library in a process that does what QEMU does with its memory, and a pager in this one. Needs root.

mod guest;
mod pager;

use std::process::Output;

use guest::{Guest, run_to_end};
use pager::{Pager, serve_one};

#[test]
fn a_booted_guest_has_private_memory_where_it_wanted_it() {
    for tracker in ["scan", "compare"] {
        let pager = Pager::listen();
        let mut guest = Guest::start(&pager, &[("THAW_PAGER_MODE", "boot"), ("THAW_TRACKER", tracker)]);
        let (regions, uffd, socket) = pager.accept();
        let base = guest.answer();
        assert_eq!(
            regions,
            serde_json::json!([{"base_host_virt_addr": base.parse::<u64>().unwrap(),
            "size": guest::MEMORY_BYTES, "offset": 0, "page_size": 4096, "page_size_kib": 4096}])
        );
        assert_eq!(guest.ask("write 3 77"), "77");
        assert_eq!(guest.ask("read 4"), "0", "missing pages are the kernel's business");
        assert_eq!(guest.ask("flags"), "", "neither merged nor huge, whatever QEMU asks for");
        let file = std::fs::read(pager.memory_path()).unwrap();
        assert!(file.iter().all(|byte| *byte == 0), "the file stays empty");
        drop((uffd, socket));
    }
}

#[test]
fn a_restored_guest_gets_its_pages_from_the_pager() {
    for tracker in ["scan", "compare"] {
        let pager = Pager::listen();
        let mut guest = Guest::start(&pager, &[("THAW_PAGER_MODE", "restore"), ("THAW_TRACKER", tracker)]);
        let (_, uffd, _socket) = pager.accept();
        guest.answer();
        guest.send("read 5");
        serve_one(&uffd, 1234, tracker == "scan");
        assert_eq!(guest.answer(), "1234");
    }
}

#[test]
fn the_end_of_the_guest_ends_its_socket() {
    let pager = Pager::listen();
    let mut guest = Guest::start(&pager, &[]);
    let (_, _uffd, socket) = pager.accept();
    guest.answer();
    drop(guest);
    let mut byte = [0];
    assert_eq!(std::io::Read::read(&mut &socket, &mut byte).unwrap(), 0);
}

/// A guest whose memory nobody serves never runs.
#[test]
fn it_fails_closed() {
    let pager = Pager::listen();
    let nobody = pager.dir.join("nobody").display().to_string();
    let long = "x".repeat(200);
    for (name, value, word) in [
        ("THAW_MEM_PATH", None, "THAW_MEM_PATH is not set"),
        ("THAW_UFFD_DEV_FD", None, "THAW_UFFD_DEV_FD is not set"),
        ("THAW_UFFD_DEV_FD", Some("x"), "no descriptor"),
        ("THAW_UFFD_DEV_FD", Some("999"), "no userfaultfd"),
        ("THAW_UFFD_DEV_FD", Some("2"), "no userfaultfd"),
        ("THAW_PAGER_SOCKET", None, "THAW_PAGER_SOCKET is not set"),
        ("THAW_PAGER_SOCKET", Some(nobody.as_str()), "no pager"),
        ("THAW_PAGER_SOCKET", Some(long.as_str()), "too long"),
        ("THAW_PAGER_MODE", Some("other"), "THAW_PAGER_MODE"),
        ("THAW_TRACKER", None, "THAW_TRACKER is not set"),
        ("GUEST_MAPS", Some("private"), "not mapped shared"),
        ("GUEST_MAPS", Some("twice"), "mapped twice"),
    ] {
        let Output { status, stderr, .. } = run_to_end(&pager, name, value);
        let stderr = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(97), "{name}={value:?}: {stderr}");
        assert!(stderr.contains(word), "{name}={value:?}: {stderr}");
    }
}
