//! Diffs that the VMM writes by itself.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use serde_json::{Value, json};

use crate::support::files::{Dir, header, listener, state};
use crate::support::pager::{Pager, borrow};
use crate::support::random::page;
use crate::support::world::World;

const PAGE: u64 = 4096;

fn restored() -> World {
    let mut world = World::boot_own("scan", &[48, 80]);
    (0..128).filter(|at| at % 5 != 0).for_each(|at| world.write(at, at as u64 + 1));
    let dumped = world.dump();
    assert_eq!(dumped.result["stored_bytes"], 102 * PAGE);
    world.commit(dumped);
    world.restore();
    world
}

#[test]
fn five_generations() {
    let mut world = restored();
    for generation in 1..=5 {
        world.check();
        (0..8).for_each(|at| world.write(at * 15 + generation, (generation * 1000 + at) as u64));
        world.poke(generation * 9, 511, 77);
        world.zero(generation * 9 + 3);
        world.discard(generation * 12, 2);
        let dumped = world.dump();
        world.commit(dumped);
        if generation % 2 == 0 {
            world.restore();
        }
    }
    world.restore();
    world.check();
}

/// Nothing of the VM's memory is read, and so nothing faulted in.
#[test]
fn only_what_the_vmm_wrote_is_read() {
    let mut world = restored();
    world.poke(7, 1, 1);
    world.zero(8);
    let before = world.pager.stats()["pages_faulted"].clone();
    let dumped = world.dump();
    assert_eq!(dumped.result["read_bytes"], 2 * PAGE);
    assert_eq!((&dumped.result["stored_bytes"], &dumped.result["zero_bytes"]), (&json!(PAGE), &json!(PAGE)));
    assert_eq!(world.pager.stats()["pages_faulted"], before);
}

#[test]
fn what_was_not_committed_is_in_the_next() {
    let mut world = restored();
    world.write(1, 100);
    world.write(2, 200);
    world.zero(3);
    world.zero(5);
    world.dump();
    world.abort();
    world.zero(2);
    world.write(4, 400);
    world.fail_dump();
    world.poke(3, 9, 9);
    let dumped = world.dump();
    assert_eq!(
        (&dumped.result["stored_bytes"], &dumped.result["zero_bytes"]),
        (&json!(3 * PAGE), &json!(PAGE))
    );
    world.commit(dumped);
    world.poke(6, 1, 1);
    let dumped = world.dump();
    assert_eq!(dumped.result["stored_bytes"], PAGE);
    world.commit(dumped);
    world.restore();
    world.check();
}

#[test]
fn another_pager_goes_on_with_it() {
    let mut world = restored();
    world.zero(3);
    world.write(4, 400);
    drop(world.dump());
    world.take_over();
    world.discard(9, 2);
    let dumped = world.dump();
    assert_eq!(dumped.result["zero_bytes"], 2 * PAGE);
    world.commit(dumped);
    world.restore();
    world.check();
}

/// A VMM that fills its memory by itself never shakes hands.
#[test]
fn of_a_vmm_that_was_never_met() {
    let dir = Dir::new();
    let mut pager = Pager::spawn(&dir.path);
    start(&mut pager, &dir, "boot", 0);
    let file = File::create_new(dir.path.join("diff")).unwrap();
    file.set_len(64 * PAGE).unwrap();
    file.write_all_at(&page(1), 3 * PAGE).unwrap();
    file.write_all_at(&[0; 4096], 4 * PAGE).unwrap();
    let (result, runs) = collect(&mut pager, &dir, false).unwrap();
    assert_eq!((&result["stored_bytes"], &result["zero_bytes"]), (&json!(PAGE), &json!(0)));
    assert_eq!(runs, [[3 * PAGE, PAGE, 1]]);
    assert_eq!(file.metadata().unwrap().blocks() * 512, PAGE, "zeros take no room");
    // It may die and nothing is lost.
    pager.kill();
    let mut pager = Pager::spawn(&dir.path);
    start(&mut pager, &dir, "take_over", 1);
    file.write_all_at(&page(2), 9 * PAGE).unwrap();
    assert_eq!(collect(&mut pager, &dir, true).unwrap().1, [[3 * PAGE, PAGE, 1], [9 * PAGE, PAGE, 1]]);
    let id = [7; 16];
    let places: Vec<_> = (0..64).map(|at| [3, 9].contains(&at).then_some((id, at * PAGE))).collect();
    std::fs::write(dir.path.join("header"), header(&places, 0, &[id])).unwrap();
    let fds = ["header", "diff"].map(|name| OwnedFd::from(File::open(dir.path.join(name)).unwrap()));
    let builds = json!({thaw_snapshot::format_build_id(&id): 1});
    pager.ask(json!({"op": "commit", "header": 0, "builds": builds}), &borrow(&fds)).unwrap();
    std::fs::remove_file(dir.path.join("diff")).unwrap();
    let file = File::create_new(dir.path.join("diff")).unwrap();
    file.set_len(64 * PAGE).unwrap();
    file.write_all_at(&[0; 4096], 3 * PAGE).unwrap();
    assert_eq!(collect(&mut pager, &dir, false).unwrap().1, [[3 * PAGE, PAGE, 2]]);
    pager.close();
}

#[test]
fn what_can_not_be_right_is_refused() {
    let dir = Dir::new();
    let mut pager = Pager::spawn(&dir.path);
    start(&mut pager, &dir, "boot", 0);
    let file = File::create_new(dir.path.join("diff")).unwrap();
    file.set_len(63 * PAGE).unwrap();
    assert_eq!(collect(&mut pager, &dir, false).unwrap_err()["kind"], "invalid_request");
    file.set_len(64 * PAGE).unwrap();
    file.write_all_at(&page(1), 0).unwrap();
    collect(&mut pager, &dir, false).unwrap();
    // Changes of a file that was lost would be lost with it.
    assert_eq!(collect(&mut pager, &dir, false).unwrap_err()["kind"], "invalid_state");
    collect(&mut pager, &dir, true).unwrap();
}

fn start(pager: &mut Pager, dir: &Dir, mode: &str, n: u32) {
    let file = if n == 0 { state(dir, 0) } else { dir.open("state-0") };
    let request = json!({"op": "start", "mode": mode, "memory_bytes": 64 * PAGE, "tracker": "compare",
        "peer_uid": 0, "listen": 0, "state": 1});
    pager.ask(request, &borrow(&[listener(dir, n), file])).unwrap();
}

fn collect(pager: &mut Pager, dir: &Dir, kept: bool) -> Result<(Value, Vec<[u64; 3]>), Value> {
    let fds = [dir.open("diff"), dir.create("runs")];
    let request = json!({"op": "collect", "diff": 0, "runs": 1, "kept": kept});
    let result = pager.ask(request, &borrow(&fds))?;
    let bytes = std::fs::read(dir.path.join("runs")).unwrap();
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    Ok((result, words.as_chunks::<3>().0.to_vec()))
}
