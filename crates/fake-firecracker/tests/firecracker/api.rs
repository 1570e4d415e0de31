//! Texts and codes of calls, one by one.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::folder::Folder;
use crate::support::http;
use crate::support::namespace::{Namespace, TAP};
use crate::support::vmm::{Vmm, create, drive, wait_until};

const AFTER: &str = "The requested operation is not supported after starting the microVM.";
const BEFORE: &str = "The requested operation is not supported before starting the microVM.";
const JSON: &str = "An error occurred when deserializing the json body of a request: ";

/// Calls and the beginning of what each is refused with.
fn assert_refused(vmm: &Vmm, calls: &[(&str, &str, Value, &str)]) {
    for (method, path, body, text) in calls {
        let refusal = vmm.ask(method, path, body).refusal();
        assert!(refusal.starts_with(text), "{method} {path} {body}: {refusal}");
    }
}

#[test]
fn a_life_in_calls() {
    let folder = Folder::new();
    let mut vmm = Vmm::spawn_with(&folder, "vmm", None, &["--id", "one-vm"]);
    assert_eq!(vmm.get("/version").json(), json!({ "firecracker_version": "1.17.0-dev" }));
    let instance = json!({ "id": "one-vm", "state": "Not started", "vmm_version": "1.17.0-dev", "app_name": "Firecracker" });
    assert_eq!(vmm.get("/").json(), instance);
    let paused = json!({ "state": "Paused" });
    assert_refused(
        &vmm,
        &[
            ("PATCH", "/vm", paused, BEFORE),
            ("PUT", "/snapshot/create", create("Full", "snap"), BEFORE),
            ("PUT", "/actions", json!({ "action_type": "FlushMetrics" }), BEFORE),
            ("PATCH", "/balloon", json!({ "amount_mib": 1 }), BEFORE),
        ],
    );
    vmm.configure();
    for (path, body) in [
        ("/vsock", json!({ "guest_cid": 2, "uds_path": "v.sock" })),
        ("/vsock", json!({ "guest_cid": 3, "uds_path": "v.sock" })),
        ("/entropy", json!({})),
        ("/balloon", json!({ "amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 1 })),
        ("/serial", json!({ "serial_out_path": "console" })),
        ("/logger", json!({ "log_path": "log", "level": "Info" })),
        ("/metrics", json!({ "metrics_path": "metrics" })),
        ("/hotplug/memory", json!({ "total_size_mib": 256 })),
        ("/cpu-config", json!({ "cpuid_modifiers": [] })),
        ("/mmds", json!({ "a": 1, "b": { "c": 2 } })),
    ] {
        vmm.tell("PUT", path, body);
    }
    vmm.tell("PATCH", "/machine-config", json!({ "vcpu_count": 2, "smt": true }));
    assert_eq!(vmm.get("/machine-config").json()["vcpu_count"], 2);
    vmm.tell("PATCH", "/mmds", json!({ "a": null, "b": { "d": 3 } }));
    assert_eq!(vmm.get("/mmds").json(), json!({ "b": { "c": 2, "d": 3 } }));
    vmm.start();
    assert_eq!(vmm.state(), "Running");
    assert_refused(
        &vmm,
        &[
            ("PUT", "/actions", json!({ "action_type": "InstanceStart" }), AFTER),
            ("PUT", "/entropy", json!({}), AFTER),
            ("PUT", "/drives/data", drive("data", "root.img"), "PCI is not enabled"),
            ("DELETE", "/drives/rootfs", json!(""), "PCI is not enabled"),
            ("PUT", "/snapshot/load", json!({ "snapshot_path": "s", "mem_file_path": "m" }), AFTER),
        ],
    );
    wait_until("drivers are up", || vmm.ask("PATCH", "/balloon", &json!({ "amount_mib": 2 })).status == 204);
    wait_until("it inflates", || vmm.get("/balloon/statistics").json()["actual_mib"] == 2);
    vmm.tell("PATCH", "/hotplug/memory", json!({ "requested_size_mib": 128 }));
    vmm.tell("PATCH", "/drives/rootfs", json!({ "drive_id": "rootfs", "path_on_host": "root.img" }));
    vmm.tell("PUT", "/actions", json!({ "action_type": "FlushMetrics" }));
    for paused in [true, true, false, false] {
        vmm.set_paused(paused);
    }
    let mut vsock = UnixStream::connect(folder.file("v.sock")).unwrap();
    let _ = vsock.write_all(b"CONNECT 5\n");
    assert!(matches!(vsock.read(&mut [0]), Ok(0) | Err(_)), "nobody listens in the guest");
    assert!(String::from_utf8(folder.read("console")).unwrap().contains("Linux version"));
    assert_eq!(vmm.get("/vm/config").json()["drives"][0]["drive_id"], "rootfs");
    vmm.tell("PUT", "/actions", json!({ "action_type": "SendCtrlAltDel" }));
    assert_eq!(vmm.exit_code(), 0);
    assert!(folder.file("v.sock").exists() && folder.file("vmm.sock").exists());
}

#[test]
fn bad_bodies_are_refused_in_its_words() {
    let folder = Folder::new();
    let vmm = Vmm::spawn(&folder, "vmm", None);
    let machine = |vcpus: u32, mem: u32, more: Value| {
        let mut body = json!({ "vcpu_count": vcpus, "mem_size_mib": mem });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let vcpus = "Machine config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even \
                 number if SMT is enabled.";
    let memory = "Machine config error: The memory size (MiB) is either 0, or not a multiple of the configured page size.";
    let unknown_field = format!("{JSON}unknown field `x`, expected one of `vcpu_count`, `mem_size_mib`, ");
    let missing_file = "Drive config error: Unable to create the virtio block device: Virtio backend error: Error \
                        manipulating the backing file: No such file or directory (os error 2) gone.img";
    let vhost = "Drive config error: Unable to create the virtio block device: Vhost user backend error: Vhost-user error: \
                 Failed to connect to UDS Unix stream: No such file or directory (os error 2)";
    assert_refused(
        &vmm,
        &[
            ("PUT", "/machine-config", machine(0, 128, json!({})), vcpus),
            ("PUT", "/machine-config", machine(33, 128, json!({})), vcpus),
            ("PUT", "/machine-config", machine(3, 128, json!({ "smt": true })), vcpus),
            ("PUT", "/machine-config", machine(1, 0, json!({})), memory),
            ("PUT", "/machine-config", machine(1, 129, json!({ "huge_pages": "2M" })), memory),
            ("PUT", "/machine-config", machine(1, 128, json!({ "x": 1 })), &unknown_field),
            (
                "PUT",
                "/drives/a_b",
                drive("other", "root.img"),
                "The id from the path does not match the id from the body!",
            ),
            (
                "PUT",
                "/drives/a-b",
                drive("a-b", "root.img"),
                "API Resource IDs can only contain alphanumeric characters and underscores.",
            ),
            ("PUT", "/drives/gone", drive("gone", "gone.img"), missing_file),
            (
                "PUT",
                "/drives/user",
                json!({ "drive_id": "user", "is_root_device": false, "socket": "no.sock" }),
                vhost,
            ),
            (
                "PUT",
                "/boot-source",
                json!({ "kernel_image_path": "gone" }),
                "Boot source error: The kernel file cannot be opened: ",
            ),
            (
                "PUT",
                "/balloon",
                json!({ "amount_mib": 999, "deflate_on_oom": false }),
                "Balloon config error: Amount of pages requested is too large.",
            ),
            ("PATCH", "/nothing", json!({}), "Invalid request method and/or path: PATCH nothing."),
        ],
    );
    vmm.tell("PUT", "/machine-config", machine(32, 128, json!({})));
    vmm.tell("PUT", "/drives/rootfs", drive("rootfs", "root.img"));
    assert_refused(
        &vmm,
        &[(
            "PUT",
            "/drives/second",
            drive("second", "root.img"),
            "Drive config error: A root block device already exists!",
        )],
    );
    vmm.tell("PUT", "/boot-source", json!({ "kernel_image_path": "root.img" }));
    let start = json!({ "action_type": "InstanceStart" });
    let refusal = vmm.put("/actions", start.clone()).refusal();
    assert!(
        refusal.ends_with("failed to load bzImage kernel image: Kernel Loader: Invalid bzImage"),
        "{refusal}"
    );
    vmm.tell("PUT", "/boot-source", json!({ "kernel_image_path": "vmlinux" }));
    vmm.tell("PUT", "/serial", json!({ "serial_out_path": "nowhere/console" }));
    let refusal = vmm.put("/actions", start).refusal();
    assert!(
        refusal.ends_with("Failed to create device manager: Error with EventFd: No such file or directory"),
        "{refusal}"
    );
    assert_eq!(vmm.state(), "Not started");
}

#[test]
fn what_http_itself_refuses_is_no_json() {
    let folder = Folder::new();
    let vmm = Vmm::spawn(&folder, "vmm", None);
    for answer in
        [vmm.ask("POST", "/actions", &json!({})), vmm.put("/mmds", json!({ "a": "a".repeat(51_200) }))]
    {
        assert_eq!(answer.status, 400);
        let text = answer.text();
        assert!(text.starts_with("{ \"error\": \"") && text.contains('\n'), "{text}");
        assert!(serde_json::from_slice::<Value>(&answer.body).is_err());
    }
    assert_eq!(vmm.put("/mmds", json!({ "a": "a".repeat(51_100) })).status, 204);
    // The connection goes on behind a body that was too long.
    let mut stream = vmm.connect();
    http::send(&mut stream, "PUT", "/mmds", &[], &[b' '; 100_000]);
    assert_eq!(http::receive(&mut stream).unwrap().status, 400);
    http::send(&mut stream, "GET", "/", &[], b"");
    assert_eq!(http::receive(&mut stream).unwrap().status, 200);
}

#[test]
fn one_call_at_a_time_on_all_connections() {
    let folder = Folder::new();
    folder.set_faults(&json!({ "slow_ms": { "GET /version": 200 } }));
    let vmm = Vmm::spawn(&folder, "vmm", None);
    let (mut slow, mut fast) = (vmm.connect(), vmm.connect());
    let start = Instant::now();
    // Both of them on one connection, which stays open.
    http::send(&mut slow, "GET", "/version", &[], b"");
    http::send(&mut slow, "GET", "/", &[], b"");
    std::thread::sleep(Duration::from_millis(50));
    http::send(&mut fast, "GET", "/", &[], b"");
    assert_eq!(http::receive(&mut fast).unwrap().status, 200);
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(http::receive(&mut slow).unwrap().text().contains("firecracker_version"));
}

#[test]
fn a_tap_belongs_to_one_vm_and_a_socket_to_one_vsock() {
    let (folder, namespace) = (Folder::new(), Namespace::new());
    let first = Vmm::spawn(&folder, "first", Some(&namespace));
    let second = Vmm::spawn(&folder, "second", Some(&namespace));
    first.configure_network(TAP);
    // The same interface once more is no second user of it.
    first.configure_network(TAP);
    let interface = json!({ "iface_id": "eth0", "host_dev_name": TAP });
    let refusal = second.put("/network-interfaces/eth0", interface).refusal();
    assert!(refusal.contains("Error while creating ifreq structure: "), "{refusal}");
    // The C library says what the number means.
    let busy = "resource busy (os error 16). invalid tun/tap backend provided by tap0.";
    assert!(refusal.to_lowercase().contains(busy), "{refusal}");
    second.configure_network("missing");

    let vsock = json!({ "guest_cid": 3, "uds_path": "v.sock" });
    first.tell("PUT", "/vsock", vsock.clone());
    let refusal = second.put("/vsock", vsock).refusal();
    assert!(
        refusal.contains("Error binding to the host-side Unix socket: Address already in use"),
        "{refusal}"
    );
}

#[test]
fn with_pci_devices_come_and_go() {
    let folder = Folder::new();
    let vmm = Vmm::spawn_with(&folder, "vmm", None, &["--enable-pci"]);
    vmm.configure();
    vmm.start();
    let data = json!({ "drive_id": "data", "is_root_device": false, "path_on_host": "root.img" });
    vmm.tell("PUT", "/drives/data", data);
    assert_eq!(vmm.ask_within(Duration::from_secs(1), "DELETE", "/drives/data", "").unwrap().status, 204);
}
