use crate::support::world::World;

const PAGE: u64 = 4096;

fn restored(tracker: &'static str) -> World {
    let mut world = World::boot(tracker, &[48, 80]);
    (0..128).filter(|at| at % 5 != 0).for_each(|at| world.write(at, at as u64 + 1));
    let dumped = world.dump();
    world.commit(dumped);
    world.restore();
    world
}

/// Discarded pages read as zero, whether they were loaded before or not, and stay so in later generations.
#[test]
fn discarded_pages_become_zero_fill() {
    for tracker in ["scan", "compare"] {
        let mut world = restored(tracker);
        world.vmm.tell("touch 9");
        world.discard(8, 4);
        world.discard(100, 20);
        world.vmm.tell("touch 101");
        assert_eq!(world.pager.stats()["removed_pages"], 24);
        let dumped = world.dump();
        assert_eq!(dumped.result["stored_bytes"], 0);
        // Pages 10, 100, 105, 110 and 115 were zero before.
        assert_eq!(dumped.result["zero_bytes"], 19 * PAGE);
        world.commit(dumped);
        world.check();
        assert_eq!(world.dump().result["zero_bytes"], 0);
        world.restore();
        world.check();
    }
}

/// A page discarded and written again is stored; one discarded after it was stored is zero in the next.
#[test]
fn discarded_pages_can_be_used_again() {
    for tracker in ["scan", "compare"] {
        let mut world = restored(tracker);
        world.discard(20, 8);
        world.poke(21, 3, 99);
        world.write(22, 1234);
        let dumped = world.dump();
        assert_eq!(dumped.result["stored_bytes"], 2 * PAGE);
        world.commit(dumped);
        world.check();
        world.discard(22, 1);
        world.vmm.tell("touch 22");
        world.poke(23, 0, 5);
        let dumped = world.dump();
        assert_eq!(dumped.result["zero_bytes"], PAGE);
        assert_eq!(dumped.result["stored_bytes"], PAGE);
        world.commit(dumped);
        world.check();
        world.restore();
        world.check();
    }
}

/// After a boot the kernel fills discarded pages; the build must still lose them.
#[test]
fn discards_of_a_booted_vm_count() {
    for tracker in ["scan", "compare"] {
        let mut world = World::boot(tracker, &[64]);
        (0..64).for_each(|at| world.write(at, at as u64));
        let dumped = world.dump();
        world.commit(dumped);
        world.discard(5, 3);
        world.vmm.tell("touch 6");
        world.write(7, 70);
        world.zero(9);
        let dumped = world.dump();
        assert_eq!(dumped.result["zero_bytes"], 3 * PAGE);
        assert_eq!(dumped.result["stored_bytes"], PAGE);
        world.commit(dumped);
        world.restore();
        world.check();
    }
}

/// Faults and discards at once: the kernel refuses pages while a discard is unread, and nobody may hang.
#[test]
fn faults_during_discards_are_answered() {
    for tracker in ["scan", "compare"] {
        let mut world = World::boot(tracker, &[700, 1348]);
        (0..2048).for_each(|at| world.write(at, at as u64 + 1));
        let dumped = world.dump();
        world.commit(dumped);
        for round in 0..3 {
            world.restore();
            let first = 600 * round + 40;
            world.vmm.tell(&format!("storm {first} 300"));
            world.model[first * 4096..][..300 * 4096].fill(0);
            world.check();
            let dumped = world.dump();
            assert_eq!(dumped.result["stored_bytes"], 0);
            world.commit(dumped);
        }
        world.restore();
        world.check();
    }
}

/// Device emulation and KVM touch guest memory from the kernel.
#[test]
fn the_kernel_faults_too() {
    let mut world = restored("scan");
    let first = u64::from_le_bytes(*crate::support::random::page(43).first_chunk().unwrap());
    assert_eq!(world.vmm.ask("syscall 42"), first.to_string());
}
