//! The working set: recorded by one run, installed ahead in the next. Whatever a record says, content and dirty pages
//! are exactly what they are without it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;

use serde_json::json;

use crate::support::files::{GUESSED, READ, WRITTEN, read_record, record};
use crate::support::pager::borrow;
use crate::support::random::Random;
use crate::support::world::{Hint, World};

const PAGE: u64 = 4096;
const PAGES: u64 = 1024;

/// A world restored from one build of 1,024 different pages, a third of them zero.
fn restored(tracker: &'static str) -> World {
    let mut world = World::boot(tracker, &[700, 324]);
    (0..1024).filter(|at| at % 3 != 0).for_each(|at| world.write(at, 1 + at as u64));
    let dumped = world.dump();
    world.commit(dumped);
    world.restore();
    world
}

/// Writes the record of this run as `workset`, and answers what it says.
fn end_record(world: &mut World) -> BTreeMap<u64, u64> {
    let file = world.dir.create("workset");
    let answer = world.pager.ask(json!({"op": "workset", "file": 0}), &borrow(&[file])).unwrap();
    let record = read_record(&std::fs::read(world.dir.path.join("workset")).unwrap());
    assert_eq!(answer["pages"], record.len());
    record
}

fn write_record(world: &World, bytes: &[u8]) {
    std::fs::write(world.dir.path.join("workset"), bytes).unwrap();
}

/// Once nothing is left to install ahead.
fn pages_ahead(world: &mut World) -> u64 {
    let mut last = None;
    loop {
        let now = world.pager.stats()["pages_ahead"].as_u64().unwrap();
        if last == Some(now) {
            return now;
        }
        last = Some(now);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn what_one_run_needed_is_there_in_the_next() {
    for tracker in ["scan", "compare"] {
        let mut world = restored(tracker);
        for at in [5, 300, 301, 699, 700, 1000] {
            world.poke(at, 1, 7);
        }
        assert!(world.pager.stats()["faults"].as_u64().unwrap() >= 5);
        let pages = end_record(&mut world).len() as u64;
        let dumped = world.dump();
        world.commit(dumped);
        world.restore_ahead(Hint::recorded("workset"));
        assert_eq!(pages_ahead(&mut world), pages);
        for at in [5, 300, 301, 699, 700, 1000] {
            world.poke(at, 2, 8);
        }
        let stats = world.pager.stats();
        assert_eq!((stats["faults"].clone(), stats["pages_faulted"].clone()), (json!(0), json!(0)));
        // Being there is not being written.
        assert_eq!(world.dump().result["stored_bytes"], 6 * PAGE);
        assert_eq!(end_record(&mut world).len() as u64, pages);
        world.check();
    }
}

#[test]
fn reads_and_writes_are_recorded_apart() {
    let mut world = restored("scan");
    for at in [40, 500] {
        world.vmm.tell(&format!("touch {at}"));
    }
    // Written after it was read, and written at once.
    world.vmm.tell("touch 900");
    for at in [900, 910, 100] {
        world.poke(at, 0, 1);
    }
    let first = end_record(&mut world);
    assert_eq!([40, 500, 900, 910, 100].map(|page| first[&page]), [READ, READ, WRITTEN, WRITTEN, WRITTEN]);
    assert_eq!(first.values().filter(|kind| **kind == WRITTEN).count(), 3);
    // What came with them.
    assert_eq!(first[&41], GUESSED);
    // Installed ahead, one is written again and one that was only read is; what comes later is not recorded.
    world.restore_ahead(Hint::recorded("workset"));
    assert_eq!(pages_ahead(&mut world), first.len() as u64);
    world.poke(900, 0, 2);
    world.poke(40, 0, 2);
    let second = end_record(&mut world);
    world.poke(500, 0, 2);
    assert_eq!(second, end_record(&mut world));
    // Whether 910 was written again shows when it is its turn; nothing of it is stored.
    assert_eq!([40, 500, 900, 910].map(|page| second[&page]), [WRITTEN, READ, WRITTEN, WRITTEN]);
    assert_eq!(world.dump().result["stored_bytes"], 3 * PAGE);
    world.check();

    // Without the kernel's marks, those that waited to write are known, and those that did once.
    let mut world = restored("compare");
    world.vmm.tell("touch 40");
    world.poke(901, 0, 1);
    let first = end_record(&mut world);
    assert_eq!([40, 901].map(|page| first[&page]), [READ, WRITTEN]);
    world.restore_ahead(Hint::recorded("workset"));
    pages_ahead(&mut world);
    assert_eq!(end_record(&mut world), first);
}

#[test]
fn what_nobody_asks_for_is_forgotten_in_time() {
    // What was written comes in at its turn too, and is guessed to be needed from then on.
    for (kind, turns) in [(GUESSED, 8), (READ, 64), (WRITTEN, 64 + 8)] {
        let mut world = restored("scan");
        write_record(&world, &record(PAGES, &[(0..PAGES, kind)]));
        let mut pages = PAGES;
        for turn in 0..turns {
            world.restore_ahead(Hint { turn: Some(turn), ..Hint::recorded("workset") });
            assert!(pages_ahead(&mut world) < pages || kind == WRITTEN);
            world.vmm.tell("touch 500");
            world.poke(505, 0, turn);
            let record = end_record(&mut world);
            assert!(record.contains_key(&500) && record[&505] == WRITTEN);
            pages = record.len() as u64;
        }
        // One that was read, one that was written, and nothing beside them.
        assert_eq!(pages, 2);
        world.check();
    }
}

#[test]
fn a_record_that_is_half_wrong_costs_time_only() {
    for tracker in ["scan", "compare"] {
        let mut world = restored(tracker);
        let runs: Vec<_> = (0..PAGES / 8).map(|run| (run * 8..run * 8 + 4, run % 3)).collect();
        write_record(&world, &record(PAGES, &runs));
        world.restore_ahead(Hint { turn: Some(3), ..Hint::recorded("workset") });
        let written: Vec<usize> = (0..1024).filter(|at| at % 7 == 2).collect();
        written.iter().for_each(|at| world.poke(*at, 3, 9));
        world.check();
        let dumped = world.dump();
        assert_eq!(dumped.result["stored_bytes"], written.len() as u64 * PAGE);
        world.commit(dumped);
        world.restore();
        world.check();
    }
}

/// The image of a world whose last build holds the pages 10, 20 … 90 alone.
fn with_changes(tracker: &'static str) -> World {
    let mut world = restored(tracker);
    (10..100).step_by(10).for_each(|at| world.poke(at, 0, 5));
    let dumped = world.dump();
    world.commit(dumped);
    world
}

#[test]
fn without_a_record_what_changed_last_comes_ahead() {
    for tracker in ["scan", "compare"] {
        let mut world = with_changes(tracker);
        world.restore_ahead(Hint { likely: true, ..Hint::default() });
        assert_eq!(pages_ahead(&mut world), 9);
        (10..100).step_by(10).for_each(|at| world.poke(at, 0, 6));
        assert_eq!(world.pager.stats()["faults"], 0);
        assert_eq!(world.dump().result["stored_bytes"], 9 * PAGE);
        world.check();
        // The parent's record beside it.
        write_record(&world, &record(PAGES, &[(18..22, READ), (1000..1003, WRITTEN)]));
        world.restore_ahead(Hint { likely: true, ..Hint::recorded("workset") });
        assert_eq!(pages_ahead(&mut world), 9 + 3 + 3);
        world.check();
    }
}

#[test]
fn a_damaged_record_is_passed_over() {
    let mut world = with_changes("scan");
    let good = record(PAGES, &[(100..200, READ), (500..501, WRITTEN)]);
    let mut random = Random(7);
    let mut bad: Vec<Vec<u8>> = (0..12)
        .map(|_| {
            let mut bytes = good.clone();
            bytes[random.below(good.len() as u64) as usize] ^= 1 << random.below(8);
            bytes
        })
        .collect();
    bad.push(good[..good.len() - 8].to_vec());
    bad.push(Vec::new());
    bad.push(vec![1; 17]);
    // One of another memory, and one as they were before they were marked.
    bad.push(record(PAGES * 2, &[(100..200, READ)]));
    bad.push([100u64, 100].iter().flat_map(|word| word.to_le_bytes()).collect());
    for bytes in bad {
        write_record(&world, &bytes);
        world.restore_ahead(Hint { turn: Some(1), ..Hint::recorded("workset") });
        assert_eq!(pages_ahead(&mut world), 9, "{bytes:?}");
        world.check();
        assert_eq!(world.dump().result["stored_bytes"], 0);
    }
}

#[test]
fn a_discarded_page_is_not_brought_back() {
    let mut world = restored("scan");
    (0..1024).step_by(8).for_each(|at| world.poke(at, 0, 3));
    end_record(&mut world);
    world.restore_ahead(Hint::recorded("workset"));
    world.discard(0, 200);
    pages_ahead(&mut world);
    world.discard(512, 20);
    world.check();
    let dumped = world.dump();
    world.commit(dumped);
    world.restore();
    world.check();
}

/// Discards and pages that come in ahead, against each other: whatever was discarded reads as zero.
#[test]
fn discards_win_while_pages_come_in_ahead() {
    let mut world = World::boot("scan", &[4096]);
    (0..4096).for_each(|at| world.poke(at, 0, 1 + at as u64));
    let dumped = world.dump();
    world.commit(dumped);
    for round in 0..6 {
        write_record(&world, &record(4096, &[(0..4096, READ)]));
        world.restore_ahead(Hint::recorded("workset"));
        for at in 0..64 {
            world.discard((at * 61 + round * 7) % 4090, 5);
        }
        world.check();
        world.pager.kill();
        world.take_over();
        world.check();
    }
}

#[test]
fn a_pager_that_takes_over_in_the_middle_goes_on() {
    for tracker in ["scan", "compare"] {
        let mut world = restored(tracker);
        write_record(&world, &record(PAGES, &[(0..PAGES, READ)]));
        world.restore_ahead(Hint::recorded("workset"));
        world.poke(17, 0, 4);
        world.discard(300, 10);
        // The VM goes on before the pager has taken note; what dies in between is forgotten.
        while world.pager.stats()["removed_pages"] != 10 {}
        world.take_over();
        world.poke(600, 0, 4);
        let dumped = world.dump();
        world.commit(dumped);
        world.check();
        assert_eq!(world.dump().result["stored_bytes"], 0);
    }
}

#[test]
fn a_record_that_cannot_be_written_is_an_error() {
    let mut world = restored("scan");
    let full = OwnedFd::from(File::options().write(true).open("/dev/full").unwrap());
    let error = world.pager.ask(json!({"op": "workset", "file": 0}), &borrow(&[full])).unwrap_err();
    assert_eq!(error["kind"], "exhausted");
    let error = world.pager.ask(json!({"op": "workset", "file": "x"}), &[]).unwrap_err();
    assert_eq!(error["kind"], "invalid_request");
    world.pager.ask(json!({"op": "workset"}), &[]).unwrap();
    let before = end_record(&mut world);
    world.poke(900, 0, 1);
    assert_eq!(end_record(&mut world), before);
}

#[test]
fn what_came_in_ahead_for_nothing_is_told() {
    for tracker in ["scan", "compare"] {
        let mut world = restored(tracker);
        assert_eq!(world.pager.stats()["untouched_bytes"], 0);
        // Pages 0, 3, … are zeros, which take no memory.
        write_record(&world, &record(PAGES, &[(600..800, READ)]));
        world.restore_ahead(Hint::recorded("workset"));
        let ahead = pages_ahead(&mut world);
        let held = (600..800).filter(|at| at % 3 != 0).count() as u64;
        assert_eq!((ahead, world.pager.stats()["untouched_bytes"].clone()), (200, json!(held * PAGE)));
        world.vmm.tell("touch 601");
        world.poke(602, 0, 1);
        world.vmm.tell("touch 7");
        world.zero(604);
        world.vmm.tell("touch 603");
        assert_eq!(world.pager.stats()["untouched_bytes"], (held - 3) * PAGE);
        world.check();
        assert_eq!(world.pager.stats()["untouched_bytes"], 0);
    }
}
