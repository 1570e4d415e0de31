//! snapshot/create.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::support::agent::{init, output};
use crate::support::folder::Folder;
use crate::support::namespace::{Namespace, TAP};
use crate::support::vmm::{MEMORY_BYTES, Vmm, create, load};

const PAGE_BYTES: usize = 4096;
/// Where the guest's devices have their queues.
const QUEUES: std::ops::Range<usize> = 0x1200..0x120e;

fn pages_that_differ(left: &[u8], right: &[u8]) -> Vec<usize> {
    let pages = left.chunks(PAGE_BYTES).zip(right.chunks(PAGE_BYTES)).enumerate();
    pages.filter(|(_, (left, right))| left != right).map(|(page, _)| page).collect()
}

fn allocated_bytes(folder: &Folder, name: &str) -> u64 {
    fs::metadata(folder.file(name)).unwrap().blocks() * 512
}

#[test]
fn only_a_paused_vm_is_written() {
    let folder = Folder::new();
    let vmm = Vmm::spawn(&folder, "vmm", None);
    vmm.configure();
    vmm.start();
    let refusal = vmm.put("/snapshot/create", create("Full", "snap")).refusal();
    let running = "Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable \
                   while running";
    assert_eq!(refusal, running);
    vmm.set_paused(true);
    let refusal = vmm.put("/snapshot/create", create("Full", "nowhere/snap")).refusal();
    let no_folder = "Create snapshot error: Cannot perform open on the snapshot backing file: No such file or directory \
                     (os error 2)";
    assert_eq!(refusal, no_folder);
    assert_eq!(vmm.state(), "Paused");
    vmm.snapshot("Full", "snap");
    assert_eq!(allocated_bytes(&folder, "snap.mem"), MEMORY_BYTES, "dense");
    assert!(fs::metadata(folder.file("snap")).unwrap().len() < 64 * 1024);
}

#[test]
fn a_diff_onto_a_copy_is_a_whole_image() {
    let (folder, namespace) = (Folder::new(), Namespace::new());
    let vmm = Vmm::spawn(&folder, "vmm", Some(&namespace));
    vmm.configure();
    vmm.configure_network(TAP);
    vmm.start();
    init(&namespace, 1, 1);
    output(&namespace, &["fill", "5000", "40", "1"]);
    vmm.snapshot("Full", "full");

    // Right after it, what devices may have written is dirty, and nothing else.
    vmm.tell("PUT", "/snapshot/create", create("Diff", "none"));
    assert_eq!(fs::metadata(folder.file("none.mem")).unwrap().len(), MEMORY_BYTES);
    assert_eq!(allocated_bytes(&folder, "none.mem"), (QUEUES.len() * PAGE_BYTES) as u64);

    vmm.set_paused(false);
    output(&namespace, &["fill", "5010", "5", "2"]);
    vmm.set_paused(true);
    fs::copy(folder.file("full.mem"), folder.file("diff.mem")).unwrap();
    fs::write(folder.file("sparse.mem"), "of another size").unwrap();
    vmm.tell("PUT", "/snapshot/create", create("Diff", "diff"));
    vmm.tell("PUT", "/snapshot/create", create("Diff", "after"));
    vmm.tell("PUT", "/snapshot/create", create("Diff", "sparse"));
    vmm.tell("PUT", "/snapshot/create", create("Full", "whole"));
    let (full, diff, whole) = (folder.read("full.mem"), folder.read("diff.mem"), folder.read("whole.mem"));
    assert_eq!(diff, whole);
    let changed = pages_that_differ(&full, &diff);
    assert!((5010..5015).all(|page| changed.contains(&page)), "{changed:?}");
    assert!(changed.iter().all(|page| *page >= 0x1010), "{changed:?}");
    for name in ["after.mem", "sparse.mem"] {
        assert_eq!(allocated_bytes(&folder, name), (QUEUES.len() * PAGE_BYTES) as u64, "{name}");
    }
}

#[test]
fn without_tracking_a_diff_has_what_is_present() {
    let folder = Folder::new();
    let vmm = Vmm::spawn(&folder, "vmm", None);
    vmm.configure();
    vmm.tell("PATCH", "/machine-config", json!({ "track_dirty_pages": false }));
    vmm.start();
    vmm.snapshot("Diff", "diff");
    let bytes = allocated_bytes(&folder, "diff.mem");
    assert!((1..MEMORY_BYTES / 8).contains(&bytes), "{bytes}");
    vmm.tell("PUT", "/snapshot/create", create("Full", "full"));
    assert_eq!(folder.read("diff.mem"), folder.read("full.mem"));

    let clone = Vmm::spawn(&folder, "clone", None);
    clone.tell("PUT", "/snapshot/load", load("diff", "File", "diff"));
    assert_eq!(clone.state(), "Running");
}
