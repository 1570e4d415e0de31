//! What the first touches of a VM's memory cost after a restore: with the pager as it is in production, beside a private
//! mapping of the same file and beside a server of a few lines. Interleaved rounds; needs root and two processors.
//!
//! `cargo bench -p thaw-pager --bench restore -- --rounds N` prints one line of JSON: by name, a value for each round.

mod bare;
mod cpu;
#[expect(dead_code, reason = "tests use the rest")]
#[path = "../../tests/pager/support/files.rs"]
mod files;
mod image;
#[expect(dead_code, reason = "tests use the rest")]
#[path = "../../tests/pager/support/memory.rs"]
mod memory;
#[expect(dead_code, reason = "the pager uses the rest")]
#[path = "../../src/mmap.rs"]
mod mmap;
#[expect(dead_code, unused_imports, reason = "the pager uses the rest")]
#[path = "../../src/page_set.rs"]
mod page_set;
#[expect(dead_code, reason = "tests use the rest")]
#[path = "../../tests/pager/support/pager.rs"]
mod pager;
#[expect(dead_code, reason = "tests use the rest")]
#[path = "../../tests/pager/support/random.rs"]
mod random;
mod scene;
mod touch;
#[expect(dead_code, reason = "the pager uses the rest")]
#[path = "../../src/uffd.rs"]
mod uffd;
mod working_set;
#[expect(dead_code, reason = "the pager uses the rest")]
#[path = "../../src/workset.rs"]
mod workset;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files::Dir;
use crate::image::{Image, write_memory};
use crate::scene::{Restore, Scene};
use crate::working_set::{MEMORY_PAGES, Touch, lonely, working_set};
use crate::workset::{Kind, Recorder};

const ENTRIES: u64 = 100_000;
const GENERATIONS: u64 = 20;
const HEAD_START: Duration = Duration::from_millis(5);
const HIGHEST_PRIORITY: i32 = -20;
/// Faults of one measurement of a fault.
const FAULTS: u64 = 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["toucher", kind, path, cpu] => touch::run(kind, path, cpu.parse().unwrap()),
        ["bare", image, cpu] => bare::run(image, cpu.parse().unwrap(), None),
        ["bare", image, cpu, ahead] => bare::run(image, cpu.parse().unwrap(), Some(ahead)),
        ["--rounds", rounds] => measure(rounds.parse().unwrap()),
        _ => panic!("usage: restore --rounds N"),
    }
}

/// The files that say what is touched and what was recorded.
struct Sets {
    touches: PathBuf,
    record: PathBuf,
    half_wrong: PathBuf,
    alone: PathBuf,
    rest: PathBuf,
    rest_record: PathBuf,
}

fn measure(rounds: usize) {
    take_precedence();
    let dir = Dir::new();
    let memory = write_memory(&dir);
    let whole = Image::whole(&dir, &memory);
    let split = Image::split(&dir, &memory, ENTRIES);
    let one = Image::of_one(&dir, &memory);
    let many = Image::of_many(&dir, &memory, GENERATIONS);
    let sets = write_sets(&dir);
    let mut scene = Scene::new(dir, memory);
    let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..rounds {
        eprint!("\rround {} of {rounds}", round + 1);
        let mut note = |name, value| figures.entry(name).or_default().push(value);
        note("mapped_ms", scene.mapped(&sets.touches));
        let other = scene.other_cpu;
        note("bare_ms", scene.bare(&sets.touches, None, other));
        for (name, record, head_start) in [
            ("recorded_ms", Some(&sets.record), Duration::ZERO),
            ("half_wrong_ms", Some(&sets.half_wrong), Duration::ZERO),
            ("unrecorded_ms", None, Duration::ZERO),
            ("head_start_ms", Some(&sets.record), HEAD_START),
        ] {
            let restore = Restore { image: &whole, record: record.map(PathBuf::as_path), head_start };
            note(name, scene.paged(&sets.touches, &restore));
        }
        let alone: (&Path, usize) = (&sets.alone, FAULTS as usize);
        note("bare_fault_us", scene.one_bare_fault(alone, &sets.rest));
        for (name, image) in [
            ("fault_us", &whole),
            ("fault_of_entries_us", &split),
            ("fault_of_one_us", &one),
            ("fault_of_generations_us", &many),
        ] {
            let restore = Restore { image, record: Some(&sets.rest_record), head_start: Duration::ZERO };
            note(name, scene.one_fault(alone, &restore));
        }
    }
    eprintln!();
    println!("{}", serde_json::to_string(&figures).unwrap());
}

/// With all that it starts, in a session of its own: what else goes on here disturbs less.
fn take_precedence() {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let _ = rustix::process::setsid();
    let _ = rustix::process::setpriority_process(None, HIGHEST_PRIORITY);
    // Where the kernel shares processors between sessions, that alone holds within this one only.
    let _ = std::fs::write("/proc/self/autogroup", HIGHEST_PRIORITY.to_string());
}

fn write_sets(dir: &Dir) -> Sets {
    let set = working_set(1);
    // As many pages, of which every other one is what another run needed.
    let other = working_set(2);
    let half: Vec<Touch> = set
        .iter()
        .zip(&other)
        .enumerate()
        .map(|(at, (own, other))| if at % 2 == 0 { *own } else { *other })
        .collect();
    let (alone, rest) = lonely(FAULTS);
    let save = |name: &str, touches: &[Touch]| {
        let path = dir.path.join(name);
        touch::save(touches, &path);
        path
    };
    let record = |name: &str, touches: &[Touch]| {
        let path = dir.path.join(name);
        write_record(touches, &path);
        path
    };
    Sets {
        touches: save("touches", &set),
        record: record("record", &set),
        half_wrong: record("half-wrong", &half),
        alone: save("alone", &alone),
        rest: save("rest", &rest),
        rest_record: record("rest-record", &rest),
    }
}

/// A record as the pager writes it.
fn write_record(touches: &[Touch], path: &Path) {
    let recorder = Recorder::new(MEMORY_PAGES);
    for touch in touches {
        recorder.note(touch.page..touch.page + 1, Kind::Read);
        if touch.write {
            recorder.note_written(touch.page..touch.page + 1);
        }
    }
    recorder.end();
    recorder.write(File::create(path).unwrap().into()).unwrap();
}
