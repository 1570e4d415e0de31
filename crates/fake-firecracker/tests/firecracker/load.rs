//! snapshot/load from files, and all that may be wrong with it.

use std::fs;

use serde_json::{Value, json};

use crate::support::folder::Folder;
use crate::support::vmm::{MEMORY_BYTES, Vmm, load};

const LOAD: &str = "Load snapshot error: Failed to restore from snapshot: ";

/// A folder with the snapshot `snap` of a VM with a vsock.
fn with_snapshot() -> Folder {
    let folder = Folder::new();
    let vmm = Vmm::spawn(&folder, "parent", None);
    vmm.configure();
    vmm.tell("PUT", "/vsock", json!({ "guest_cid": 3, "uds_path": "v.sock" }));
    vmm.start();
    vmm.snapshot("Full", "snap");
    vmm.kill();
    folder
}

#[test]
fn two_kinds_of_refusal_leave_it_alive() {
    let folder = with_snapshot();
    let vmm = Vmm::spawn(&folder, "vmm", None);
    let backend = json!({ "backend_type": "File", "backend_path": "snap.mem" });
    for (body, text) in [
        (
            json!({ "snapshot_path": "snap" }),
            "missing field: either `mem_backend` or `mem_file_path` is required.",
        ),
        (
            json!({ "snapshot_path": "snap", "mem_file_path": "m", "mem_backend": backend }),
            "too many fields: either `mem_backend` or `mem_file_path` exclusively is required.",
        ),
    ] {
        let refusal = vmm.put("/snapshot/load", body).refusal();
        assert_eq!(
            refusal,
            format!("An error occurred when deserializing the json body of a request: {text}")
        );
    }
    vmm.tell("PUT", "/logger", json!({ "level": "Info" }));
    vmm.tell("PUT", "/serial", json!({ "serial_out_path": "console" }));
    vmm.tell("PUT", "/entropy", json!({}));
    let refusal = vmm.put("/snapshot/load", load("snap", "File", "snap")).refusal();
    let configured = "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.";
    assert_eq!((refusal.as_str(), vmm.state().as_str()), (configured, "Not started"));
}

#[test]
fn every_other_failure_ends_it() {
    let folder = with_snapshot();
    fs::write(folder.file("bad"), [folder.read("snap").as_slice(), b"x"].concat()).unwrap();
    fs::write(folder.file("short"), "short").unwrap();
    fs::write(folder.file("short.mem"), "short").unwrap();
    let good = || load("snap", "File", "snap");
    let with = |field: &str, value: Value| {
        let mut body = good();
        body[field] = value;
        body
    };
    let state = "Failed to get snapshot state from file: ";
    let from_file = "Failed to load guest memory: Error creating guest memory from file: ";
    let from_uffd = "Failed to load guest memory: Error creating guest memory from uffd: Failed to connect to UDS Unix stream: ";
    let devices =
        "Failed to build microVM from snapshot: Failed to restore devices: Error restoring MMIO devices: ";
    let interface = json!([{ "iface_id": "eth7", "host_dev_name": "tap0" }]);
    let cases: Vec<(Value, String)> = vec![
        (
            load("gone", "File", "snap"),
            format!("{state}Failed to open snapshot file: No such file or directory (os error 2)"),
        ),
        (
            load("bad", "File", "snap"),
            format!("{state}Failed to load snapshot state from file: CRC64 validation failed"),
        ),
        (
            load("short", "File", "snap"),
            format!("{state}Failed to load snapshot state from file: An error occurred during bitcode"),
        ),
        (
            load("snap", "File", "gone"),
            format!("{from_file}Failed to load guest memory: No such file or directory (os error 2)"),
        ),
        (
            load("snap", "File", "short"),
            format!("{from_file}Failed to restore guest memory: Total sum of memory regions exceeds"),
        ),
        (
            with("huge_pages", json!("2M")),
            format!(
                "{from_file}Cannot restore hugetlbfs backed snapshot by mapping the memory file. Please use uffd."
            ),
        ),
        (with("network_overrides", interface), format!("{state}Unknown Network Device.")),
        (load("snap", "Uffd", "no.sock"), format!("{from_uffd}No such file or directory (os error 2)")),
        (load("snap", "Uffd", "parent.stale"), format!("{from_uffd}Connection refused (os error 111)")),
        // The parent left its socket.
        (
            good(),
            format!(
                "{devices}VsockUnixBackend: Error binding to the host-side Unix socket: Address already in use (os error 98)"
            ),
        ),
        (
            with("vsock_override", json!({ "uds_path": "other.sock" })),
            format!(
                "{devices}Block: Virtio backend error: Error manipulating the backing file: No such file or directory (os error 2) root.img"
            ),
        ),
    ];
    drop(std::os::unix::net::UnixListener::bind(folder.file("parent.stale")).unwrap());
    let last = cases.len() - 1;
    for (index, (body, text)) in cases.into_iter().enumerate() {
        if index == last {
            fs::remove_file(folder.file("root.img")).unwrap();
        }
        let name = format!("vmm{index}");
        let mut vmm = Vmm::spawn(&folder, &name, None);
        let refusal = vmm.put("/snapshot/load", body).refusal();
        assert!(refusal.starts_with(&format!("{LOAD}{text}")), "{refusal}");
        assert_eq!(vmm.exit_code(), 1);
        assert!(vmm.log().contains("Error: RunWithApi(BuildMicroVmError(Restore))"));
        assert!(folder.file(&format!("{name}.sock")).exists());
    }
}

#[test]
fn a_clone_is_another_vm_with_its_own_names() {
    let folder = with_snapshot();
    let vmm = Vmm::spawn(&folder, "vmm", None);
    vmm.tell("PUT", "/serial", json!({ "serial_out_path": "console" }));
    let mut body = load("snap", "File", "snap");
    body["vsock_override"] = json!({ "uds_path": "clone.sock" });
    body["resume_vm"] = json!(false);
    vmm.tell("PUT", "/snapshot/load", body);
    assert_eq!((vmm.state().as_str(), folder.file("clone.sock").exists()), ("Paused", true));
    // Nothing ran: only the generation id differs.
    vmm.snapshot("Full", "again");
    let (before, after) = (folder.read("snap.mem"), folder.read("again.mem"));
    assert_eq!(before.len() as u64, MEMORY_BYTES);
    let differs = (0..before.len()).filter(|at| before[*at] != after[*at]);
    assert!(differs.clone().all(|at| (0xdf000..0xdf010).contains(&at)) && differs.count() > 0);
    vmm.set_paused(false);
    assert_eq!(vmm.state(), "Running");
}

#[test]
fn a_kernel_that_is_not_what_it_was_ends_the_guest() {
    let folder = with_snapshot();
    fs::remove_file(folder.file("v.sock")).unwrap();
    let mut memory = folder.read("snap.mem");
    memory[0x100_3000] ^= 1;
    fs::write(folder.file("snap.mem"), memory).unwrap();
    let mut vmm = Vmm::spawn(&folder, "vmm", None);
    vmm.tell("PUT", "/snapshot/load", load("snap", "File", "snap"));
    assert_eq!(vmm.exit_code(), 0);
    assert!(vmm.log().contains("Kernel panic - not syncing: bad page at 0x1003000"), "{}", vmm.log());
}
