//! The mounted file beside a plain one, in interleaved rounds; prints medians. Run by hand:
//! `cargo test --release -p thaw-blockstore --test speed -- --ignored --nocapture`

mod support;

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use support::header::Blocks;
use support::random::Random;
use support::{BLOCK, Directory, Server, private_mounts, read, write};

const SIZE: u64 = 256 << 20;
const PHASE: Duration = Duration::from_millis(700);
const PHASES: [&str; 6] = [
    "sequential write, synced",
    "sequential read 1 MiB",
    "random read 4 KiB",
    "random write 4 KiB",
    "4 KiB + fsync",
    "cold sequential read",
];

#[test]
#[ignore = "a measurement"]
fn speed() {
    private_mounts();
    let directory = Directory::new();
    let raw = directory.create("raw");
    let build = directory.create("build");
    let mut random = Random::new(1);
    for offset in (0..SIZE).step_by(1 << 20) {
        let bytes = random.bytes(1 << 20);
        write(&raw, offset, &bytes);
        write(&build, offset, &bytes);
    }
    raw.sync_all().unwrap();
    build.sync_all().unwrap();
    let header =
        Blocks((0..SIZE / BLOCK as u64).map(|block| Some(([3; 16], block * BLOCK as u64))).collect());
    let header = header.write(&directory, "header");
    let (top, zeros) = (directory.create("top"), directory.create("zeros"));
    let server = Server::over_build(&directory, SIZE, &[3; 16], [&top, &zeros, &header, &build]);
    let served = server.file(false);
    // Both sides start with every block allocated and on disk.
    fill(&served, &mut random);
    let mut rates = vec![[Vec::new(), Vec::new()]; PHASES.len()];
    for _ in 0..5 {
        for (phase, rates) in rates.iter_mut().enumerate() {
            for (side, file) in [&raw, &served].into_iter().enumerate() {
                rates[side].push(measure(phase, file, &mut random));
            }
        }
    }
    let mut product = 1.0;
    for (phase, sides) in PHASES.iter().zip(&mut rates) {
        let [raw, served] = sides.each_mut().map(|rates| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        });
        product *= served / raw;
        println!("{phase:24} raw {raw:10.0}  served {served:10.0}  ratio {:.2}", served / raw);
    }
    println!("geometric mean {:.2}", f64::powf(product, 1.0 / PHASES.len() as f64));
}

fn fill(file: &File, random: &mut Random) {
    let large = random.bytes(1 << 20);
    (0..SIZE >> 20).for_each(|index| write(file, index << 20, &large));
    file.sync_data().unwrap();
}

/// MiB/s of the sequential phases, operations a second of the others.
fn measure(phase: usize, file: &File, random: &mut Random) -> f64 {
    let large = random.bytes(1 << 20);
    let start = Instant::now();
    let mut count = 0;
    if phase == 5 {
        rustix::fs::fadvise(file, 0, None, Advice::DontNeed).unwrap();
    }
    while start.elapsed() < PHASE || matches!(phase, 0 | 5) {
        let offset = match phase {
            0 | 1 | 5 => (count % (SIZE >> 20)) << 20,
            _ => random.below(SIZE / BLOCK as u64) * BLOCK as u64,
        };
        match phase {
            0 => write(file, offset, &large),
            1 | 5 => drop(read(file, offset, 1 << 20)),
            2 => drop(read(file, offset, BLOCK)),
            _ => write(file, offset, &large[(count as usize % 256) * BLOCK..][..BLOCK]),
        }
        if phase == 4 {
            file.sync_data().unwrap();
        }
        count += 1;
        if matches!(phase, 0 | 5) && count == SIZE >> 20 {
            break;
        }
    }
    if phase == 0 {
        file.sync_data().unwrap();
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    file.sync_data().unwrap();
    rate
}
