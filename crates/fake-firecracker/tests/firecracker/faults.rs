//! What `faults.json` makes go wrong.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::agent::{CONTROL_PORT, GUEST_PORT, identity, init};
use crate::support::folder::Folder;
use crate::support::http;
use crate::support::namespace::{Namespace, TAP};
use crate::support::vmm::{HANGS, MEMORY_BYTES, Vmm, create, load};

fn spawn(folder: &Folder, faults: Value) -> Vmm {
    folder.set_faults(&faults);
    Vmm::spawn(folder, "vmm", None)
}

fn start(folder: &Folder, faults: Value) -> Vmm {
    let vmm = spawn(folder, faults);
    vmm.configure();
    vmm.start();
    vmm
}

#[test]
fn it_ends_by_itself() {
    let folder = Folder::new();
    let mut vmm = spawn(&folder, json!({ "exit_after_ms": 100, "exit_code": 7 }));
    assert_eq!(vmm.exit_code(), 7);
}

#[test]
fn a_call_hangs_and_all_behind_it() {
    let folder = Folder::new();
    let vmm = start(&folder, json!({ "hang_on": "PATCH /vm" }));
    assert_eq!(vmm.state(), "Running");
    let paused = json!({ "state": "Paused" }).to_string();
    assert!(vmm.ask_within(HANGS, "PATCH", "/vm", &paused).is_none());
    assert!(vmm.ask_within(HANGS, "GET", "/", "").is_none());
}

#[test]
fn snapshots_fail() {
    let folder = Folder::new();
    let vmm = start(&folder, json!({}));
    vmm.set_paused(true);
    folder.set_faults(&json!({ "fail_create": "out of luck" }));
    assert_eq!(
        vmm.put("/snapshot/create", create("Full", "a")).refusal(),
        "Create snapshot error: out of luck"
    );
    assert!(!folder.file("a").exists());
    folder.set_faults(&json!({ "no_space": true }));
    let refusal = vmm.put("/snapshot/create", create("Full", "b")).refusal();
    assert!(refusal.ends_with("No space left on device (os error 28)"), "{refusal}");
    assert_eq!(fs::metadata(folder.file("b.mem")).unwrap().len(), MEMORY_BYTES);
    folder.set_faults(&json!({}));
    vmm.snapshot("Full", "c");
}

#[test]
fn loads_die_and_hang() {
    let folder = Folder::new();
    let vmm = start(&folder, json!({}));
    vmm.snapshot("Full", "snap");
    vmm.kill();
    let mut vmm = spawn(&folder, json!({ "die_in_load": true, "exit_code": 9 }));
    let body = load("snap", "File", "snap").to_string();
    assert!(vmm.ask_within(Duration::from_secs(5), "PUT", "/snapshot/load", &body).is_none());
    assert_eq!(vmm.exit_code(), 9);
    fs::remove_file(folder.file("vmm.sock")).unwrap();
    let vmm = spawn(&folder, json!({ "hang_in_load": true }));
    assert!(vmm.ask_within(HANGS, "PUT", "/snapshot/load", &body).is_none());
}

#[test]
fn the_guest_is_silent() {
    let (folder, namespace) = (Folder::new(), Namespace::new());
    folder.set_faults(&json!({ "never_answer_init": true }));
    let vmm = Vmm::spawn(&folder, "vmm", Some(&namespace));
    vmm.configure();
    vmm.configure_network(TAP);
    vmm.start();
    let mut stream = namespace.connect(CONTROL_PORT);
    stream.set_read_timeout(Some(HANGS)).unwrap();
    http::send(&mut stream, "POST", "/init", &[], identity(1, 1).to_string().as_bytes());
    assert!(http::receive(&mut stream).is_none());
    folder.set_faults(&json!({}));
    vmm.snapshot("Diff", "a");
    vmm.set_paused(false);
    init(&namespace, 1, 1);
    folder.set_faults(&json!({ "silent_tap": true }));
    vmm.snapshot("Diff", "b");
    vmm.set_paused(false);
    assert!(namespace.try_connect(GUEST_PORT, HANGS).is_err());
    assert_eq!(vmm.state(), "Running");
}

#[test]
fn a_fault_that_nobody_knows_is_no_fault() {
    let folder = Folder::new();
    let mut vmm = spawn(&folder, json!({ "die_in_lode": true }));
    assert_eq!(vmm.exit_code(), 1);
}
