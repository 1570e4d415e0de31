//! Memory that is a build's files, mapped by the VMM: what the guest only reads is nobody's, what it writes is its own.

use serde_json::json;

use crate::support::pager::borrow;
use crate::support::world::World;

const PAGE: u64 = 4096;

/// Sealed with pages 0..64 written, and restored from that.
fn restored(tracker: &'static str) -> World {
    let mut world = World::boot_mapped(tracker, &[100, 28]);
    (0..64).for_each(|at| world.write(at, at as u64));
    let dumped = world.dump();
    world.commit(dumped);
    world.restore();
    world
}

#[test]
fn only_what_was_written_is_stored() {
    for tracker in ["scan", "compare"] {
        let mut world = restored(tracker);
        (0..64).for_each(|at| world.vmm.tell(&format!("touch {at}")));
        assert_eq!(world.pager.stats()["backend"], json!("mapped"));
        assert_eq!(world.pager.stats()["resident_bytes"], json!(0), "what was only read is not its own");
        let dumped = world.dump();
        assert_eq!((&dumped.result["stored_bytes"], &dumped.result["zero_bytes"]), (&json!(0), &json!(0)));
        world.abort();

        world.write(3, 1000);
        world.write(90, 1001);
        world.poke(40, 7, 7);
        world.zero(5);
        world.zero(91);
        let dumped = world.dump();
        assert_eq!(dumped.result["stored_bytes"], json!(3 * PAGE), "{tracker}");
        assert_eq!(dumped.result["zero_bytes"], json!(PAGE), "{tracker}");
        world.abort();
        // Still part of the next one.
        let dumped = world.dump();
        assert_eq!(dumped.result["stored_bytes"], json!(3 * PAGE), "{tracker}");
        world.commit(dumped);

        // What is its own stays so; stored is what changed since.
        world.write(3, 2000);
        world.write(10, 2001);
        let dumped = world.dump();
        assert_eq!(dumped.result["stored_bytes"], json!(2 * PAGE), "{tracker}");
        world.commit(dumped);
        let dumped = world.dump();
        assert_eq!(dumped.result["stored_bytes"], json!(0), "{tracker}");
        world.commit(dumped);
        world.check();
        world.restore();
        world.check();
        world.pager.close();
    }
}

#[test]
fn a_later_seal_reads_only_what_changed_since() {
    let mut world = restored("scan");
    (0..64).for_each(|at| world.write(at, 500 + at as u64));
    let dumped = world.dump();
    assert_eq!(dumped.result["read_bytes"], json!(64 * PAGE));
    world.commit(dumped);
    world.write(7, 7000);
    assert_eq!(world.dump().result["read_bytes"], json!(PAGE));
}

#[test]
fn the_end_of_the_vmm_is_noticed() {
    let mut world = restored("compare");
    world.vmm.child.kill().unwrap();
    world.pager.event("gone");
}

/// For the next start, which is served.
#[test]
fn the_working_set_is_what_was_touched() {
    for tracker in ["scan", "compare"] {
        let mut world = restored(tracker);
        for at in [2, 40] {
            world.vmm.tell(&format!("touch {at}"));
        }
        world.write(90, 1);
        world.pager.ask(json!({"op": "workset"}), &[]).unwrap();
        world.vmm.tell("touch 60");
        let file = world.dir.create("workset");
        world.pager.ask(json!({"op": "workset", "file": 0}), &borrow(&[file])).unwrap();
        let bytes = std::fs::read(world.dir.path.join("workset")).unwrap();
        let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let runs = words[2..words.len() - 1].chunks(2);
        let mut recorded: Vec<u64> = runs.flat_map(|run| run[0]..run[0] + (run[1] & LENGTH)).collect();
        recorded.sort_unstable();
        assert!([2, 40, 90].iter().all(|page| recorded.contains(page)), "{recorded:?}");
        // Without write marks the kernel maps neighbours too.
        assert!(tracker == "compare" || recorded == [2, 40, 90], "{recorded:?}");
    }
}

/// Byte by byte, also in a second seal of the same run.
#[test]
fn a_seal_is_what_it_would_be_of_served_memory() {
    for tracker in ["scan", "compare"] {
        let seals = [World::boot(tracker, REGIONS), World::boot_mapped(tracker, REGIONS)].map(two_seals);
        assert!(seals[0] == seals[1], "{tracker}");
    }
}

const REGIONS: &[usize] = &[100, 28];
/// The rest of a run's second word is its kind.
const LENGTH: u64 = (1 << 62) - 1;

/// The runs and the memfile of each.
fn two_seals(mut world: World) -> Vec<Vec<u8>> {
    (0..64).for_each(|at| world.write(at, at as u64));
    let dumped = world.dump();
    world.commit(dumped);
    world.restore();
    let mut files = Vec::new();
    for generation in 1..=2 {
        for at in [3, 17, 90, 91, 120] {
            world.write(at, 1000 * generation + at as u64);
        }
        world.poke(40 + generation as usize, 7, 7);
        world.zero(5 + generation as usize);
        world.zero(70);
        world.vmm.tell("touch 20");
        world.vmm.tell("touch 110");
        let dumped = world.dump();
        let memfile = format!("{}.memfile", thaw_snapshot::format_build_id(&dumped.id));
        files.extend(["runs", &memfile].map(|name| std::fs::read(world.dir.path.join(name)).unwrap()));
        world.commit(dumped);
    }
    files
}
