//! Random use of a disk, with kills and power cuts, against a model in memory.
//! `THAW_TEST_SEED=7 THAW_TEST_SEEDS=1` runs one seed, `THAW_TEST_SEEDS=500` many.

mod support;

use rustix::fs::FallocateFlags;
use support::random::{Random, seeds};
use support::world::World;
use support::{BLOCK, private_mounts, punch, write};

const BLOCKS: u64 = 1500;
const STEPS: u64 = 250;

#[test]
fn random_use_never_differs_from_the_model() {
    private_mounts();
    for seed in seeds(6) {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut world = World::new(BLOCKS, &mut random);
        for _ in 0..STEPS {
            step(&mut world, &mut random);
        }
        world.check_all();
    }
}

fn step(world: &mut World, random: &mut Random) {
    match random.below(100) {
        0..45 => write_some(world, random),
        45..60 => clear_some(world, random),
        60..80 => {
            let (offset, length) = range(world, random);
            world.check(offset, length, random.chance(70));
        }
        80..87 => world.flush(random.chance(50)),
        87..91 if !world.is_rotated() => world.rotate(),
        87..91 if random.chance(50) => world.commit(),
        87..91 => world.abort(),
        91..94 => {
            world.restart();
            world.check_all();
        }
        94..97 => {
            world.cut_power(random);
            // What was rotated need not be what is on disk now: it can only go back into the top.
            world.abort();
        }
        _ => world.check_all(),
    }
}

fn write_some(world: &mut World, random: &mut Random) {
    let (offset, length) = range(world, random);
    let mut bytes = random.bytes(length);
    let mixed = random.chance(30);
    if random.chance(25) || mixed {
        let until = if mixed { random.below(length as u64 + 1) as usize } else { length };
        bytes[..until].fill(0);
    }
    write(&world.server.file(random.chance(50)), offset, &bytes);
    world.change(offset, &bytes);
}

fn clear_some(world: &mut World, random: &mut Random) {
    let (offset, length) = range(world, random);
    let file = world.server.file(false);
    if random.chance(50) {
        punch(&file, offset, length as u64);
    } else {
        let mode = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, mode, offset, length as u64).unwrap();
    }
    world.change(offset, &vec![0; length]);
}

/// Mostly whole blocks; sometimes hundreds of them; close to each other, so that blocks are hit again and again.
fn range(world: &World, random: &mut Random) -> (u64, usize) {
    let block = BLOCK as u64;
    let longest = if random.chance(5) { 400 } else { 12 };
    let window = if random.chance(70) { 200 } else { world.size() / block };
    if random.chance(70) {
        let start = random.below(window);
        let blocks = (1 + random.below(longest)).min(world.size() / block - start);
        (start * block, (blocks * block) as usize)
    } else {
        let start = random.below(window * block);
        let length = (1 + random.below(longest * 1000)).min(world.size() - start);
        (start, length as usize)
    }
}
