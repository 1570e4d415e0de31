//! Random histories against the model. `THAW_SEED` repeats one, `THAW_SEEDS` runs more.

use std::os::fd::AsFd;

use serde_json::json;

use crate::support::files::record;
use crate::support::random::Random;
use crate::support::world::{Hint, World};

const STEPS: u64 = 150;

#[test]
fn random_histories_scan() {
    run_seeds("scan", |regions| World::boot("scan", regions));
}

#[test]
fn random_histories_compare() {
    run_seeds("compare", |regions| World::boot("compare", regions));
}

#[test]
fn random_histories_of_a_vmm_that_tracks_its_writes() {
    run_seeds("own scan", |regions| World::boot_own("scan", regions));
    run_seeds("own compare", |regions| World::boot_own("compare", regions));
}

#[test]
fn random_histories_of_mapped_memory() {
    run_seeds("mapped scan", |regions| World::boot_mapped("scan", regions));
    run_seeds("mapped compare", |regions| World::boot_mapped("compare", regions));
}

fn run_seeds(tracker: &str, boot: impl Fn(&[usize]) -> World) {
    let variable = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match variable("THAW_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..variable("THAW_SEEDS").unwrap_or(6) + 1,
    };
    for seed in seeds {
        eprintln!("tracker {tracker} THAW_SEED={seed}");
        history(&boot, seed);
    }
}

fn history(boot: impl Fn(&[usize]) -> World, seed: u64) {
    let mut random = Random(seed);
    let regions = [30 + random.below(40) as usize, 100, 1 + random.below(130) as usize];
    let mut world = boot(&regions);
    let pages = world.pages() as u64;
    for _ in 0..STEPS {
        let at = random.below(pages) as usize;
        match random.below(22) {
            0..6 => world.write(at, random.next()),
            6..8 => world.poke(at, random.below(512) as usize, random.below(3)),
            8..10 => world.zero(at),
            10..12 => world.vmm.tell(&format!("touch {at}")),
            12..15 => {
                let region_end = region_end(&regions, at);
                let count = (1 + random.below(20) as usize).min(region_end - at);
                world.discard(at, count);
            }
            15 => world.check(),
            16 => world.fail_dump(),
            17 => drop(world.pre_dump()),
            18 => {
                world.dump();
                if random.below(2) == 0 {
                    world.abort();
                }
            }
            _ => {
                let dumped = world.dump();
                if random.below(3) == 0 {
                    world.write(at, random.next());
                    world.discard(pages as usize - 1, 1);
                }
                world.commit(dumped);
                if random.below(2) == 0 {
                    restore(&mut world, &mut random);
                }
            }
        }
    }
    world.check();
    let dumped = world.dump();
    world.commit(dumped);
    world.restore();
    world.check();
}

/// With what this run needed, with pages at random, with what is likely, or with nothing ahead.
fn restore(world: &mut World, random: &mut Random) {
    let pages = world.pages() as u64;
    match random.below(4) {
        0 => {
            let file = world.dir.create("workset");
            world.pager.ask(json!({"op": "workset", "file": 0}), &[file.as_fd()]).unwrap();
        }
        1 => {
            let mut runs = Vec::new();
            let mut at = random.below(20);
            while at < pages {
                let end = (at + 1 + random.below(30)).min(pages);
                runs.push((at..end, random.below(3)));
                at = end + random.below(40);
            }
            std::fs::write(world.dir.path.join("workset"), record(pages, &runs)).unwrap();
        }
        2 => return world.restore_ahead(Hint { likely: true, ..Hint::default() }),
        _ => return world.restore(),
    }
    let turn = (random.below(2) == 0).then(|| random.below(64));
    let likely = random.below(4) == 0;
    world.restore_ahead(Hint { turn, likely, ..Hint::recorded("workset") });
}

fn region_end(regions: &[usize], at: usize) -> usize {
    let mut end = 0;
    regions
        .iter()
        .map(|pages| {
            end += pages;
            end
        })
        .find(|end| at < *end)
        .unwrap()
}
