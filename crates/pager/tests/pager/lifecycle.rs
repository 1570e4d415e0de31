use serde_json::json;

use crate::support::pager::borrow;
use crate::support::world::World;

const PAGE: u64 = 4096;

#[test]
fn five_generations_scan() {
    five_generations("scan");
}

#[test]
fn five_generations_compare() {
    five_generations("compare");
}

/// Boots with three regions, then pauses and resumes; each time some pages are new, changed, zeroed, discarded.
fn five_generations(tracker: &'static str) {
    let mut world = World::boot(tracker, &[200, 1, 311]);
    for at in (0..512).step_by(3) {
        world.write(at, at as u64);
    }
    for generation in 1..=5 {
        world.check();
        let dumped = world.dump();
        world.commit(dumped);
        world.restore();
        if generation % 2 == 0 {
            world.check();
        }
        for at in 0..8 {
            world.write(at * 60 + generation, (generation * 1000 + at) as u64);
        }
        world.poke(generation * 9, 511, 77);
        world.zero(generation * 9 + 3);
        world.discard(generation * 12, 2);
    }
    world.check();
    let dumped = world.dump();
    world.commit(dumped);
    world.restore();
    world.check();
    let stats = world.pager.stats();
    assert_eq!(stats["tracker"], tracker);
    assert_eq!(
        stats["bytes_by_build"].as_object().unwrap().values().filter(|bytes| **bytes != json!(0)).count(),
        6
    );
    world.pager.close();
}

/// Only what was written is read and stored, also when ranges alternate far more often than one scan reports.
#[test]
fn a_scan_reads_dirty_pages_only() {
    let mut world = World::boot("scan", &[20_001]);
    world.vmm.tell("touch 20000");
    for at in 0..10_000 {
        world.poke(at * 2, 0, at as u64 + 1);
    }
    let dumped = world.dump();
    assert_eq!(dumped.result["stored_bytes"], 10_000 * PAGE);
    assert_eq!(dumped.result["read_bytes"], 10_000 * PAGE);
    world.commit(dumped);
    world.poke(4000, 5, 6);
    let dumped = world.dump();
    assert_eq!(dumped.result["stored_bytes"], PAGE);
    world.commit(dumped);
    world.restore();
    world.check();
    for at in 0..300 {
        world.poke(at * 60, 1, 9);
    }
    let dumped = world.dump();
    assert_eq!(dumped.result["read_bytes"], 300 * PAGE);
    assert_eq!(world.pager.stats()["read_frozen_bytes"], 300 * PAGE);
    world.commit(dumped);
    assert_eq!(world.dump().result["stored_bytes"], 0);
}

/// What was copied while the VM ran is not read again, unless it was written since; what was discarded is gone.
#[test]
fn a_dump_goes_on_from_what_was_copied_before() {
    for mode in ["boot", "restore", "mapped"] {
        let mut world = if mode == "mapped" {
            World::boot_mapped("scan", &[100, 28])
        } else {
            World::boot("scan", &[100, 28])
        };
        (0..128).for_each(|at| world.write(at, at as u64));
        if mode != "boot" {
            let dumped = world.dump();
            world.commit(dumped);
            world.restore();
            (0..120).for_each(|at| world.write(at, 1000 + at as u64));
        }
        let copied = world.pre_dump().unwrap();
        world.write(7, 70);
        world.poke(110, 3, 3);
        world.zero(9);
        if mode != "mapped" {
            world.discard(20, 5);
        }
        let before = world.pager.stats()["read_frozen_bytes"].as_u64().unwrap();
        let dumped = world.dump();
        let discarded = if mode == "mapped" { 0 } else { 5 };
        assert_eq!(dumped.result["read_bytes"], 3 * PAGE, "{mode}");
        assert_eq!(world.pager.stats()["read_frozen_bytes"], before + 3 * PAGE);
        assert_eq!(dumped.result["stored_bytes"], copied - (1 + discarded) * PAGE, "{mode}");
        world.commit(dumped);
        assert_eq!(world.dump().result["stored_bytes"], 0);
        world.restore();
        world.check();
    }
}

/// A dump into a file of its own, an abort and a pager that died make nothing of what was copied before.
#[test]
fn what_was_copied_before_may_come_to_nothing() {
    let mut world = World::boot("scan", &[64]);
    (0..64).for_each(|at| world.write(at, 1));
    world.pre_dump().unwrap();
    world.fail_dump();
    let runs = [world.dir.create("runs")];
    let refused = world.pager.ask(json!({"op": "dump", "runs": 0}), &borrow(&runs)).unwrap_err();
    assert_eq!(refused["kind"], "invalid_state");
    world.pre_dump();
    world.abort();
    assert_eq!(world.pre_dump_within(63 * PAGE), None, "who writes meanwhile needs the rest of the disk");
    let dumped = world.dump();
    assert_eq!(dumped.result["read_bytes"], 64 * PAGE);
    world.commit(dumped);
    assert_eq!(World::boot("compare", &[64]).pre_dump(), None, "nothing tells what is written since");
}

/// The VM goes on between a dump and its commit; what it writes then belongs to the next dump.
#[test]
fn writes_between_dump_and_commit_are_kept() {
    for tracker in ["scan", "compare"] {
        let mut world = World::boot(tracker, &[64]);
        (0..64).for_each(|at| world.write(at, 1));
        let dumped = world.dump();
        world.write(3, 30);
        world.write(4, 40);
        world.commit(dumped);
        let dumped = world.dump();
        assert_eq!(dumped.result["stored_bytes"], 2 * PAGE);
        world.commit(dumped);
        world.restore();
        world.check();
    }
}

/// Each way a seal can fail, once: the next dump has everything.
#[test]
fn a_failed_seal_loses_nothing() {
    for tracker in ["scan", "compare"] {
        let mut world = World::boot(tracker, &[64]);
        (0..32).for_each(|at| world.write(at, 1));
        let dumped = world.dump();
        world.commit(dumped);
        world.restore();
        world.write(1, 10);
        world.fail_dump();
        world.write(2, 20);
        world.dump();
        world.abort();
        world.discard(3, 1);
        world.write(4, 40);
        world.discard(2, 1);
        // No answer at all: the next dump comes without an abort.
        world.dump();
        let refused = world.pager.ask(json!({"op": "commit", "header": 0, "builds": {}}), &[]).unwrap_err();
        assert_eq!(refused["kind"], "invalid_request");
        world.zero(1);
        let dumped = world.dump();
        assert_eq!(dumped.result["stored_bytes"], PAGE);
        assert_eq!(dumped.result["zero_bytes"], 3 * PAGE);
        world.commit(dumped);
        assert_eq!(world.dump().result["read_bytes"].as_u64().unwrap() > 0, tracker == "compare");
        world.restore();
        world.check();
    }
}

#[test]
fn a_commit_needs_a_whole_dump() {
    let mut world = World::boot("scan", &[16]);
    world.write(0, 1);
    let dumped = world.dump();
    world.fail_dump();
    let refused = world.pager.ask(json!({"op": "commit", "header": 0, "builds": {}}), &[]).unwrap_err();
    assert_eq!(refused["kind"], "invalid_state");
    drop(dumped);
    world.dump();
}

#[test]
fn a_window_comes_with_its_page() {
    let mut world = World::boot("scan", &[64]);
    (0..64).for_each(|at| world.write(at, 1));
    let dumped = world.dump();
    world.commit(dumped);
    world.restore();
    world.write(17, 5);
    let stats = world.pager.stats();
    assert_eq!((stats["faults"].clone(), stats["pages_faulted"].clone()), (json!(1), json!(16)));
    assert_eq!(
        (stats["bytes_copied"].clone(), stats["resident_bytes"].clone()),
        (json!(16 * PAGE), json!(16 * PAGE))
    );
    assert_eq!(stats["latency_us"]["buckets"][0][1], 1);
    world.poke(18, 0, 3);
    assert_eq!(world.pager.stats()["faults"], 1);
    assert_eq!(world.dump().result["stored_bytes"], 2 * PAGE);
    world.check();
}

#[test]
fn the_end_of_the_vmm_is_noticed() {
    let mut world = World::boot("scan", &[16]);
    world.vmm.child.kill().unwrap();
    world.vmm.child.wait().unwrap();
    world.pager.event("gone");
    let fds = [world.dir.create("memfile"), world.dir.create("runs")];
    let request = json!({"op": "dump", "memfile": 0, "runs": 1});
    let error = world.pager.ask(request, &crate::support::pager::borrow(&fds)).unwrap_err();
    assert_eq!(error["kind"], "invalid_state");
    assert_eq!(world.pager.stats()["resident_bytes"], 0);
}
