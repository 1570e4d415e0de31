//! What older versions don't know.

use serde_json::{Value, json};

use crate::support::folder::Folder;
use crate::support::vmm::Vmm;

fn refusal_of(version: &str, method: &str, path: &str, body: &Value) -> Option<String> {
    let folder = Folder::new();
    folder.set_faults(&json!({ "version": version }));
    let vmm = Vmm::spawn(&folder, "vmm", None);
    assert_eq!(vmm.get("/version").json()["firecracker_version"], version);
    let answer = vmm.ask(method, path, body);
    (answer.status != 204).then(|| answer.refusal())
}

#[test]
fn fields_are_unknown_before_they_came() {
    let load =
        |field: &str, value: Value| json!({ "snapshot_path": "s", "mem_file_path": "m", field: value });
    let cases = [
        ("1.15.9", "1.16.0", "/snapshot/load", "clock_realtime", load("clock_realtime", json!(true))),
        ("1.12.1", "1.13.0", "/snapshot/load", "track_dirty_pages", load("track_dirty_pages", json!(true))),
        ("1.16.0", "1.17.0", "/snapshot/load", "huge_pages", load("huge_pages", json!("None"))),
        ("1.11.0", "1.12.0", "/snapshot/load", "network_overrides", load("network_overrides", json!([]))),
        (
            "1.15.1",
            "1.16.0",
            "/snapshot/load",
            "vsock_override",
            load("vsock_override", json!({ "uds_path": "v" })),
        ),
        ("1.16.0", "1.17.0", "/metrics", "emit_id", json!({ "metrics_path": "m", "emit_id": true })),
    ];
    for (older, newer, path, field, body) in cases {
        let refusal = refusal_of(older, "PUT", path, &body).unwrap();
        assert!(refusal.contains(&format!("unknown field `{field}`, expected one of `")), "{refusal}");
        assert_eq!(refusal.matches(field).count(), 1, "it is not among what is expected: {refusal}");
        let newer = refusal_of(newer, "PUT", path, &body).unwrap_or_default();
        assert!(!newer.contains("unknown field"), "{newer}");
    }
    let transparent = json!({ "vcpu_count": 1, "mem_size_mib": 128, "huge_pages": "Transparent" });
    let refusal = refusal_of("1.16.0", "PUT", "/machine-config", &transparent).unwrap();
    assert!(refusal.contains("unknown variant `Transparent`"), "{refusal}");
    assert_eq!(refusal_of("1.17.0", "PUT", "/machine-config", &transparent), None);
}

#[test]
fn paths_are_unknown_before_they_came() {
    let bodies = [
        ("/serial", json!({ "serial_out_path": "console" }), "serial"),
        ("/hotplug/memory", json!({ "total_size_mib": 128 }), "hotplug"),
        ("/pmem/data", json!({ "id": "data", "path_on_host": "root.img" }), "pmem"),
    ];
    for (path, body, name) in bodies {
        let refusal = refusal_of("1.13.0", "PUT", path, &body).unwrap();
        assert_eq!(refusal, format!("Invalid request method and/or path: PUT {name}."));
        assert_eq!(refusal_of("1.14.0", "PUT", path, &body), None);
    }
}
