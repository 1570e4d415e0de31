//! The working set: recorded by one run, installed ahead in the next.

use std::fs::File;
use std::os::fd::OwnedFd;

use serde_json::json;

use crate::support::pager::borrow;
use crate::support::world::World;

/// A world restored from one build of 1,024 different pages, a third of them zero.
fn restored(tracker: &'static str) -> World {
    let mut world = World::boot(tracker, &[700, 324]);
    (0..1024).filter(|at| at % 3 != 0).for_each(|at| world.write(at, 1 + at as u64));
    let dumped = world.dump();
    world.commit(dumped);
    world.restore();
    world
}

fn record(world: &mut World) -> u64 {
    let file = world.dir.create("workset");
    world.pager.ask(json!({"op": "workset", "file": 0}), &borrow(&[file])).unwrap()["pages"].as_u64().unwrap()
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
        let faults = world.pager.stats()["faults"].as_u64().unwrap();
        assert!(faults >= 5);
        let pages = record(&mut world);
        let dumped = world.dump();
        world.commit(dumped);
        world.restore_ahead(Some("workset"), None);
        assert_eq!(pages_ahead(&mut world), pages);
        for at in [5, 300, 301, 699, 700, 1000] {
            world.poke(at, 2, 8);
        }
        let stats = world.pager.stats();
        assert_eq!((stats["faults"].clone(), stats["pages_faulted"].clone()), (json!(0), json!(0)));
        // Being there is not being written.
        assert_eq!(world.dump().result["stored_bytes"], 6 * 4096);
        assert_eq!(record(&mut world), pages);
        world.check();
    }
}

#[test]
fn what_nobody_asks_for_is_forgotten_in_time() {
    let mut world = restored("scan");
    let all: Vec<u8> = [0u64, 1024].iter().flat_map(|word| word.to_le_bytes()).collect();
    std::fs::write(world.dir.path.join("workset"), all).unwrap();
    let mut pages = 1024;
    for turn in 0..8 {
        world.restore_ahead(Some("workset"), Some(turn));
        let ahead = pages_ahead(&mut world);
        assert!(ahead < pages);
        world.poke(500, 0, turn);
        pages = record(&mut world);
        world.check();
    }
    // Page 500 and the one that lies beside it in the build.
    assert_eq!(pages, 2);
}

#[test]
fn a_discarded_page_is_not_brought_back() {
    let mut world = restored("scan");
    (0..1024).step_by(8).for_each(|at| world.poke(at, 0, 3));
    record(&mut world);
    world.restore_ahead(Some("workset"), None);
    world.discard(0, 200);
    pages_ahead(&mut world);
    world.discard(512, 20);
    world.check();
    let dumped = world.dump();
    world.commit(dumped);
    world.restore();
    world.check();
}

#[test]
fn nonsense_is_passed_over() {
    let mut world = restored("scan");
    std::fs::write(world.dir.path.join("nonsense"), [1; 17]).unwrap();
    world.restore_ahead(Some("nonsense"), Some(1));
    assert_eq!(pages_ahead(&mut world), 0);
    world.check();
    let full = OwnedFd::from(File::options().write(true).open("/dev/full").unwrap());
    let error = world.pager.ask(json!({"op": "workset", "file": 0}), &borrow(&[full])).unwrap_err();
    assert_eq!(error["kind"], "exhausted");
    let error = world.pager.ask(json!({"op": "workset", "file": "x"}), &[]).unwrap_err();
    assert_eq!(error["kind"], "invalid_request");
    world.pager.ask(json!({"op": "workset"}), &[]).unwrap();
    let before = record(&mut world);
    world.poke(900, 0, 1);
    assert_eq!(record(&mut world), before);
}
