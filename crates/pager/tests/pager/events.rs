use crate::support::world::World;

const PAGE: u64 = 4096;

fn restored() -> World {
    let mut world = World::boot_wired("scan", &[64, 64], true);
    (0..128).for_each(|at| world.write(at, at as u64 + 1));
    let dumped = world.dump();
    world.commit(dumped);
    world.restore();
    world
}

#[test]
fn moved_memory_is_still_served_and_tracked() {
    let mut world = restored();
    world.write(20, 9);
    world.vmm.tell("relocate 10 30");
    world.vmm.tell("relocate 15 3");
    world.write(16, 8);
    world.check();
    world.write(39, 7);
    world.write(40, 6);
    let dumped = world.dump();
    assert_eq!(dumped.result["stored_bytes"], 4 * PAGE);
    world.commit(dumped);
    world.restore();
    world.check();
}

#[test]
fn unmapped_memory_becomes_zero_fill() {
    let mut world = restored();
    world.write(70, 5);
    world.vmm.tell("unmap 68 8");
    world.model[68 * 4096..][..8 * 4096].fill(0);
    let dumped = world.dump();
    assert_eq!(dumped.result["zero_bytes"], 8 * PAGE);
    world.commit(dumped);
    world.restore();
    world.check();
}

/// A child's userfaultfd arrives with the event; it must not stay open here.
#[test]
fn a_fork_leaves_no_descriptor() {
    let mut world = restored();
    let fds = |world: &World| std::fs::read_dir(format!("/proc/{}/fd", world.pager.pid())).unwrap().count();
    let before = fds(&world);
    for _ in 0..3 {
        world.vmm.tell("fork");
    }
    world.check();
    assert_eq!(fds(&world), before);
}
