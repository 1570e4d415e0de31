//! A pager dies, and another one takes its place: nothing that the VM wrote, discarded or waits for is lost.

use serde_json::json;

use crate::support::files::listener;
use crate::support::pager::borrow;
use crate::support::world::World;

const REGIONS: &[usize] = &[200, 1, 311];

#[test]
fn after_a_death_with_scan() {
    goes_on(World::boot("scan", REGIONS));
}

#[test]
fn after_a_death_with_compare() {
    goes_on(World::boot("compare", REGIONS));
}

#[test]
fn after_a_death_with_mapped_memory() {
    for tracker in ["scan", "compare"] {
        goes_on(World::boot_mapped(tracker, REGIONS));
    }
}

fn goes_on(mut world: World) {
    for at in (0..512).step_by(3) {
        world.write(at, at as u64);
    }
    world.take_over();
    world.write(4, 4444);
    let dumped = world.dump();
    world.commit(dumped);
    for generation in 1..=3 {
        world.restore();
        world.write(generation * 7, 1000 + generation as u64);
        world.discard(generation * 30, 4);
        world.zero(generation * 50);
        // Found dirty, and in no committed build.
        drop(world.dump());
        world.take_over();
        world.poke(generation * 7 + 1, 3, 5);
        world.discard(generation * 30 + 5, 2);
        world.take_over();
        let dumped = world.dump();
        world.commit(dumped);
        world.take_over();
        world.poke(generation * 9, 1, 1);
        world.check();
        let dumped = world.dump();
        world.commit(dumped);
    }
    world.restore();
    world.check();
    world.pager.close();
}

#[test]
fn of_another_memory_is_refused() {
    let mut world = World::boot("scan", &[16]);
    let mut pager = crate::support::pager::Pager::spawn(&world.dir.path);
    let fds = [listener(&world.dir, 9), world.dir.open("state-0")];
    let mut request = json!({"op": "start", "mode": "take_over", "memory_bytes": 32 * 4096, "tracker": "scan",
        "peer_uid": 0, "listen": 0, "state": 1});
    assert!(pager.ask(request.clone(), &borrow(&fds)).is_err());
    // Nor without what the keeper kept.
    let fds = [listener(&world.dir, 10), world.dir.open("state-0")];
    request["memory_bytes"] = json!(16 * 4096);
    assert!(pager.ask(request, &borrow(&fds)).is_err());
    world.check();
}
