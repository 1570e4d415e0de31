//! What it costs to have a template's memory mapped by ten clones at once, by where it is mapped from. Not run by
//! default: `cargo test --release -p thaw-preload --test speed -- --ignored --nocapture`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use linux_raw_sys::general::{
    UFFD_API, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_WP_ASYNC, uffdio_api, uffdio_range,
    uffdio_register,
};
use linux_raw_sys::ioctl::{UFFDIO_API, UFFDIO_REGISTER};

const PAGE: u64 = 4096;
const PAGES: u64 = 131_072;
const STORED_PAGES: u64 = 17_408;
const TOUCHED: u64 = 2000;
const WRITTEN_OF_TEN: u64 = 3;
const CLONES: usize = 10;
const ROUNDS: usize = 3;

/// A memory in `count` runs of pages: first page, pages, and where they are in a packed file.
fn runs(count: u64) -> Vec<(u64, u64, u64)> {
    let (length, stride) = (STORED_PAGES / count, PAGES / count);
    (0..count).map(|run| (run * stride, length, run * length)).collect()
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    /// Each run from the packed file.
    Pieces,
    /// One file as large as the memory.
    Flat,
    Memfd,
}

struct Cost {
    map_ms: f64,
    touch_ms: f64,
    pss_mib: f64,
    own_mib: f64,
    tables_mib: f64,
}

#[test]
#[ignore = "a measurement"]
fn ten_clones_of_one_memory() {
    println!(
        "{PAGES} pages, {STORED_PAGES} stored; {CLONES} clones touch {TOUCHED} each; medians of {ROUNDS} rounds"
    );
    println!("runs   from    marks  map ms  touch ms  shared+tables MiB  written MiB  kernel KiB  disk MiB");
    for count in [400, 4000, 16_000] {
        let (packed, flat, memfd) = (file("packed"), file("flat"), memfd());
        fill(count, [&packed, &flat, &memfd]);
        let sets = [(Kind::Pieces, &packed), (Kind::Flat, &flat), (Kind::Memfd, &memfd)];
        for (kind, file) in sets {
            for marks in [false, true] {
                let mut costs = Vec::new();
                let mut kernel = Vec::new();
                for _ in 0..ROUNDS {
                    let (more, bytes) = clones(kind, file, count, marks);
                    costs.extend(more);
                    kernel.push(bytes);
                }
                let of = |pick: fn(&Cost) -> f64| median(costs.iter().map(pick).collect());
                let disk = if kind == Kind::Flat { file.metadata().unwrap().blocks() * 512 } else { 0 };
                println!(
                    "{count:<6} {:<7} {:<6} {:>6.1} {:>9.1} {:>18.2} {:>12.2} {:>11.0} {:>9.0}",
                    format!("{kind:?}"),
                    marks,
                    of(|cost| cost.map_ms),
                    of(|cost| cost.touch_ms),
                    of(|cost| cost.pss_mib - cost.own_mib + cost.tables_mib),
                    of(|cost| cost.own_mib),
                    median(kernel) / 1024.0,
                    disk as f64 / 1048576.0,
                );
            }
        }
    }
}

fn file(name: &str) -> File {
    let path = format!("/var/tmp/thaw-speed-{}-{name}", std::process::id());
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    inherit(&file);
    file
}

fn memfd() -> File {
    // SAFETY: a C string and no flags; the descriptor is new.
    let file = unsafe { File::from_raw_fd(libc::memfd_create(c"memory".as_ptr(), 0)) };
    inherit(&file);
    file
}

fn inherit(file: &File) {
    // SAFETY: plain arguments.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) }, 0);
}

fn fill(count: u64, [packed, flat, memfd]: [&File; 3]) {
    for file in [flat, memfd] {
        file.set_len(PAGES * PAGE).unwrap();
    }
    for (first, pages, at) in runs(count) {
        let bytes: Vec<u8> = (0..pages * PAGE).map(|byte| (byte + first) as u8 | 1).collect();
        packed.write_all_at(&bytes, at * PAGE).unwrap();
        for file in [flat, memfd] {
            file.write_all_at(&bytes, first * PAGE).unwrap();
        }
    }
    for file in [packed, flat] {
        file.sync_all().unwrap();
    }
}

/// All at once, each in a process of its own. Besides: kernel memory of each for its mappings, in bytes.
fn clones(kind: Kind, file: &File, count: u64, marks: bool) -> (Vec<Cost>, f64) {
    let before = slabs();
    let mut started: Vec<(Child, BufReader<ChildStdout>)> = (0..CLONES)
        .map(|seed| {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "clone", "--nocapture"])
                .env("SPEED", format!("{kind:?} {} {count} {marks} {seed}", file.as_raw_fd()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let out = BufReader::new(child.stdout.take().unwrap());
            (child, out)
        })
        .collect();
    // All of them map and touch together.
    let told: Vec<Vec<f64>> = started
        .iter_mut()
        .map(|(_, out)| {
            let line = out.lines().map(Result::unwrap).find(|line| line.starts_with("SPEED ")).unwrap();
            line.split(' ').skip(1).map(|word| word.parse().unwrap()).collect()
        })
        .collect();
    let kernel = (slabs() - before) / CLONES as f64;
    let costs = started.iter().zip(&told).map(|((child, _), told)| measure(child.id(), told)).collect();
    for (mut child, _) in started {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
    (costs, kernel)
}

fn measure(pid: u32, told: &[f64]) -> Cost {
    let start = told[2] as u64;
    let (mut pss, mut own, mut inside) = (0.0, 0.0, false);
    for line in std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap().lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        if let Some((from, _)) = word.split_once('-')
            && let Ok(from) = u64::from_str_radix(from, 16)
        {
            inside = (start..start + PAGES * PAGE).contains(&from);
        }
        let kib = || line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0;
        match word {
            "Pss:" if inside => pss += kib(),
            "Anonymous:" if inside => own += kib(),
            _ => {}
        }
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let tables = status.lines().find_map(|line| line.strip_prefix("VmPTE:")).unwrap();
    let tables = tables.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0;
    Cost { map_ms: told[0], touch_ms: told[1], pss_mib: pss, own_mib: own, tables_mib: tables }
}

/// Bytes that the kernel has for mappings.
fn slabs() -> f64 {
    let slabs = std::fs::read_to_string("/proc/slabinfo").unwrap();
    let names = ["vm_area_struct", "anon_vma", "anon_vma_chain", "maple_node", "vma_lock"];
    slabs
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| names.contains(&words[0]))
        .map(|words| words[1].parse::<f64>().unwrap() * words[3].parse::<f64>().unwrap())
        .sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Not a test: one clone.
#[test]
#[ignore = "a clone's own process"]
fn clone() {
    let Ok(asked) = std::env::var("SPEED") else { return };
    let words: Vec<&str> = asked.split(' ').collect();
    let (fd, count, seed) =
        (words[1].parse().unwrap(), words[2].parse().unwrap(), words[4].parse::<u64>().unwrap());
    let started = Instant::now();
    let start = map(words[0], fd, count);
    let uffd = (words[3] == "true").then(|| mark(start));
    let mapped = started.elapsed();
    let started = Instant::now();
    let runs = runs(count);
    let mut random = seed;
    for touch in 0..TOUCHED {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (first, pages, _) = runs[(random >> 33) as usize % runs.len()];
        // Programs touch what lies together.
        let page = first + touch % pages;
        let at = (start + page * PAGE) as *mut u64;
        // SAFETY: a page of the mapping.
        unsafe {
            let value = at.read_volatile();
            if touch % 10 < WRITTEN_OF_TEN {
                at.write_volatile(value + 1);
            }
        }
    }
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
    println!("\nSPEED {} {} {start}", ms(mapped), ms(started.elapsed()));
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
    drop(uffd);
}

fn map(kind: &str, fd: i32, count: u64) -> u64 {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let map = |at: u64, length: u64, flags: i32, fd: i32, offset: u64| {
        let flags = flags | libc::MAP_PRIVATE | libc::MAP_NORESERVE;
        // SAFETY: at an address of the kernel's choice, or over a mapping made here.
        let at = unsafe { libc::mmap(at as *mut _, length as usize, prot, flags, fd, offset as libc::off_t) };
        assert_ne!(at, libc::MAP_FAILED);
        at as u64
    };
    if kind != "Pieces" {
        return map(0, PAGES * PAGE, 0, fd, 0);
    }
    let start = map(0, PAGES * PAGE, libc::MAP_ANONYMOUS, -1, 0);
    for (first, pages, at) in runs(count) {
        map(start + first * PAGE, pages * PAGE, libc::MAP_FIXED, fd, at * PAGE);
    }
    start
}

/// Registers all of it for asynchronous write marks.
fn mark(start: u64) -> OwnedFd {
    // SAFETY: the requests take these structures; the descriptor is new.
    unsafe {
        let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) as i32;
        let features = u64::from(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_ASYNC);
        let mut api = uffdio_api { api: u64::from(UFFD_API), features, ioctls: 0 };
        assert_eq!(libc::ioctl(fd, UFFDIO_API as _, &raw mut api), 0);
        let range = uffdio_range { start, len: PAGES * PAGE };
        let mut register = uffdio_register { range, mode: 2, ioctls: 0 };
        assert_eq!(libc::ioctl(fd, UFFDIO_REGISTER as _, &raw mut register), 0);
        OwnedFd::from_raw_fd(fd)
    }
}
