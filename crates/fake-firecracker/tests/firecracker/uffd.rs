//! snapshot/load through a pager.

use serde_json::json;

use crate::support::agent::{control, identity, init, output};
use crate::support::folder::Folder;
use crate::support::namespace::{Namespace, TAP};
use crate::support::pager::{Event, Pager};
use crate::support::vmm::{HANGS, MEMORY_BYTES, Vmm, create, load, wait_until};

/// A snapshot `snap` of a guest with 60 filled pages from page 5000 on; gives their checksum.
fn snapshot(folder: &Folder, namespace: &Namespace) -> String {
    let vmm = Vmm::spawn(folder, "parent", Some(namespace));
    vmm.configure();
    vmm.configure_network(TAP);
    vmm.tell(
        "PUT",
        "/balloon",
        json!({ "amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 1 }),
    );
    vmm.start();
    init(namespace, 1, 1);
    output(namespace, &["fill", "5000", "60", "9"]);
    let sum = output(namespace, &["sum", "5000", "60"]);
    vmm.snapshot("Full", "snap");
    vmm.kill();
    sum
}

fn faults(pager: &Pager) -> Vec<(u64, bool)> {
    let fault = |event: Event| match event {
        Event::Fault { page, write } => Some((page, write)),
        Event::Remove { .. } => None,
    };
    pager.events().into_iter().filter_map(fault).collect()
}

#[test]
fn memory_comes_page_by_page() {
    let (folder, namespace) = (Folder::new(), Namespace::new());
    let sum = snapshot(&folder, &namespace);
    let pager = Pager::start(&folder.file("pager.sock"), &folder.file("snap.mem"));
    let mut vmm = Vmm::spawn(&folder, "vmm", Some(&namespace));
    let mut body = load("snap", "Uffd", "pager.sock");
    body["resume_vm"] = json!(false);
    vmm.tell("PUT", "/snapshot/load", body);
    assert_eq!(faults(&pager), [(0xdf000, true), (0xde000, false)], "inside the load");
    let text = pager.handshake();
    let base =
        serde_json::from_str::<serde_json::Value>(&text).unwrap()[0]["base_host_virt_addr"].as_u64().unwrap();
    let expected = format!(
        r#"[{{"base_host_virt_addr":{base},"size":{MEMORY_BYTES},"offset":0,"page_size":4096,"page_size_kib":4096}}]"#
    );
    assert_eq!(text, expected);

    vmm.set_paused(false);
    wait_until("it runs", || faults(&pager).len() > 6);
    let pages: Vec<u64> = faults(&pager).iter().map(|fault| fault.0).collect();
    assert_eq!(pages[2..6], [0x9000, 0xa000, 0xb000, 0x100_0000]);
    assert_eq!(output(&namespace, &["sum", "5000", "60"]), sum);
    let faulted = faults(&pager).len() as u64;
    assert!(faulted < 200, "{faulted}");

    // A Diff has what was written, a Full brings in all that is missing.
    vmm.snapshot("Diff", "diff");
    assert_eq!(faults(&pager).len() as u64, faulted);
    vmm.tell("PUT", "/snapshot/create", create("Full", "full"));
    assert_eq!(faults(&pager).len() as u64, MEMORY_BYTES / 4096);
    vmm.child.kill().unwrap();
    wait_until("the pager sees it", || pager.saw_vmm_go());
}

#[test]
fn much_memory_lies_in_two_regions() {
    const MIB: u64 = 1 << 20;
    let folder = Folder::new();
    let vmm = Vmm::spawn(&folder, "parent", None);
    vmm.configure();
    vmm.tell("PATCH", "/machine-config", json!({ "mem_size_mib": 3200 }));
    vmm.start();
    vmm.snapshot("Diff", "snap");
    vmm.kill();
    let pager = Pager::start(&folder.file("pager.sock"), &folder.file("snap.mem"));
    folder.set_faults(&json!({ "version": "1.9.0" }));
    let vmm = Vmm::spawn(&folder, "vmm", None);
    let mut body = load("snap", "Uffd", "pager.sock");
    body.as_object_mut().unwrap().remove("track_dirty_pages");
    vmm.tell("PUT", "/snapshot/load", body);
    let regions: Vec<serde_json::Value> = serde_json::from_str(&pager.handshake()).unwrap();
    let place = |region: &serde_json::Value| (region["offset"].as_u64(), region["size"].as_u64());
    let places: Vec<_> = regions.iter().map(place).collect();
    assert_eq!(places, [(Some(0), Some(3072 * MIB)), (Some(3072 * MIB), Some(128 * MIB))]);
    let sizes = regions.iter().map(|region| (region.get("page_size"), region["page_size_kib"].as_u64()));
    assert!(sizes.eq([(None, Some(4096)), (None, Some(4096))]), "1.9 has one name for it");
}

#[test]
fn clones_have_the_memory_in_common_and_nothing_else() {
    let (folder, one, two) = (Folder::new(), Namespace::new(), Namespace::new());
    let sum = snapshot(&folder, &one);
    let _pager = Pager::start(&folder.file("pager.sock"), &folder.file("snap.mem"));
    let (first, second) =
        (Vmm::spawn(&folder, "first", Some(&one)), Vmm::spawn(&folder, "second", Some(&two)));
    first.tell("PUT", "/snapshot/load", load("snap", "Uffd", "pager.sock"));
    second.tell("PUT", "/snapshot/load", load("snap", "File", "snap"));
    let both = |words: &[&str]| (output(&one, words), output(&two, words));
    assert_eq!(both(&["sum", "5000", "60"]), (sum.clone(), sum));
    assert_eq!(both(&["hostname"]), ("guest1".into(), "guest1".into()));
    let generations = both(&["generation"]);
    assert_ne!(generations.0, generations.1);
    // Without fresh entropy they would say the same.
    let random = both(&["random"]);
    assert_eq!(random.0, random.1);
    assert_eq!(control(&one, "/init", identity(2, 7)).status, 204);
    assert_eq!(control(&two, "/init", identity(2, 8)).status, 204);
    let random = both(&["random"]);
    assert_ne!(random.0, random.1);
    output(&one, &["fill", "5000", "1", "1"]);
    let sums = both(&["sum", "5000", "60"]);
    assert_ne!(sums.0, sums.1);
}

#[test]
fn a_balloon_gives_memory_back_mib_by_mib() {
    let (folder, namespace) = (Folder::new(), Namespace::new());
    snapshot(&folder, &namespace);
    let pager = Pager::start(&folder.file("pager.sock"), &folder.file("snap.mem"));
    let vmm = Vmm::spawn(&folder, "vmm", Some(&namespace));
    vmm.tell("PUT", "/snapshot/load", load("snap", "Uffd", "pager.sock"));
    let top = (MEMORY_BYTES / 4096 - 4).to_string();
    output(&namespace, &["fill", &top, "4", "3"]);
    wait_until("drivers are up", || vmm.ask("PATCH", "/balloon", &json!({ "amount_mib": 3 })).status == 204);
    wait_until("it inflates", || vmm.get("/balloon/statistics").json()["actual_mib"] == 3);
    let mib = |count: u64| MEMORY_BYTES - (count << 20);
    let expected = [1, 2, 3].map(|count| Event::Remove { start: mib(count), end: mib(count - 1) });
    let is_removal = |event: &Event| matches!(event, Event::Remove { .. });
    wait_until("the pager sees it", || {
        let removed: Vec<Event> = pager.events().into_iter().filter(is_removal).collect();
        removed == expected
    });
    vmm.tell("PATCH", "/balloon", json!({ "amount_mib": 0 }));
    let first = (mib(1) / 4096).to_string();
    let zeros = output(&namespace, &["sum", &first, "4"]);
    assert_eq!(output(&namespace, &["sum", &top, "4"]), zeros, "what was there is gone");
}

#[test]
fn a_load_waits_for_a_pager_that_does_not_serve() {
    let (folder, namespace) = (Folder::new(), Namespace::new());
    snapshot(&folder, &namespace);
    let mut pager = Pager::start(&folder.file("pager.sock"), &folder.file("snap.mem"));
    pager.set_serving(false);
    let vmm = Vmm::spawn(&folder, "vmm", Some(&namespace));
    let body = load("snap", "Uffd", "pager.sock").to_string();
    assert!(vmm.ask_within(HANGS, "PUT", "/snapshot/load", &body).is_none());
    pager.die();
    assert!(vmm.ask_within(HANGS, "GET", "/", "").is_none(), "its death helps nobody");
}

#[test]
fn a_pager_that_dies_later_is_noticed_when_a_page_is_missing() {
    let (folder, namespace) = (Folder::new(), Namespace::new());
    snapshot(&folder, &namespace);
    let mut pager = Pager::start(&folder.file("pager.sock"), &folder.file("snap.mem"));
    let vmm = Vmm::spawn(&folder, "vmm", Some(&namespace));
    let mut body = load("snap", "Uffd", "pager.sock");
    body["resume_vm"] = json!(false);
    vmm.tell("PUT", "/snapshot/load", body);
    pager.die();
    vmm.set_paused(false);
    assert_eq!(vmm.state(), "Running", "so it says");
    let paused = json!({ "state": "Paused" }).to_string();
    assert!(vmm.ask_within(HANGS, "PATCH", "/vm", &paused).is_none());
    assert!(vmm.ask_within(HANGS, "GET", "/", "").is_none());
}
