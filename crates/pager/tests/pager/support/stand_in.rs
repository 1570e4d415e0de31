//! A stand-in for the VMM: this test program started once more. It has registered memory, shakes hands with the
//! pager, and does what single lines on its standard input (a socket) tell it, answering each with a line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use linux_raw_sys::general::{
    UFFD_FEATURE_EVENT_FORK, UFFD_FEATURE_EVENT_REMAP, UFFD_FEATURE_EVENT_REMOVE, UFFD_FEATURE_EVENT_UNMAP,
    UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_WP_ASYNC,
};

use super::memory::{MISSING, Memory, WP, send};

/// How the stand-in registers its memory, and what it asks to be told.
#[derive(Clone, Copy, Debug)]
pub struct Wiring {
    pub restore: bool,
    /// Restored by mapping the files that `pieces`, beside the image, names.
    pub mapped: bool,
    pub scan: bool,
    /// Fork, remap and unmap events as well.
    pub all_events: bool,
}

pub struct StandIn {
    pub child: Child,
    commands: UnixStream,
    answers: BufReader<UnixStream>,
}

impl StandIn {
    /// `image` is the file that `check` compares with.
    pub fn start(wiring: Wiring, regions: &[usize], pager_socket: &Path, image: &Path) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let regions: Vec<String> = regions.iter().map(usize::to_string).collect();
        let flag = |on: bool| if on { "1" } else { "0" };
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "support::stand_in::run", "--nocapture"])
            .env("STAND_IN_REGIONS", regions.join(","))
            .env("STAND_IN_RESTORE", flag(wiring.restore))
            .env("STAND_IN_MAPPED", flag(wiring.mapped))
            .env("STAND_IN_SCAN", flag(wiring.scan))
            .env("STAND_IN_ALL_EVENTS", flag(wiring.all_events))
            .env("STAND_IN_SOCKET", pager_socket)
            .env("STAND_IN_IMAGE", image)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stand_in = Self { child, commands: ours.try_clone().unwrap(), answers: BufReader::new(ours) };
        assert_eq!(stand_in.answer(), "ready");
        stand_in
    }

    /// Sends a command and returns its answer.
    pub fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        self.answer()
    }

    /// Sends a command that must succeed.
    pub fn tell(&mut self, command: &str) {
        assert_eq!(self.ask(command), "ok", "{command}");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: what the child process runs.
#[test]
#[ignore = "the stand-in's own process"]
fn run() {
    let Ok(regions) = std::env::var("STAND_IN_REGIONS") else { return };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let flag = |name: &str| std::env::var(name).unwrap() == "1";
    let wiring = Wiring {
        restore: flag("STAND_IN_RESTORE"),
        mapped: flag("STAND_IN_MAPPED"),
        scan: flag("STAND_IN_SCAN"),
        all_events: flag("STAND_IN_ALL_EVENTS"),
    };
    let regions: Vec<usize> = regions.split(',').map(|pages| pages.parse().unwrap()).collect();
    let mut memory = Memory::new(&regions);
    if wiring.mapped {
        map(&memory);
    }
    let uffd = memory.register(features(wiring), mode(wiring));
    let socket = UnixStream::connect(std::env::var("STAND_IN_SOCKET").unwrap()).unwrap();
    send(&socket, memory.json().as_bytes(), &[uffd.as_fd()]);

    let mut out = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    writeln!(out, "ready").unwrap();
    for line in BufReader::new(out.try_clone().unwrap()).lines().map_while(Result::ok) {
        let answer = obey(&mut memory, &line);
        writeln!(out, "{answer}").unwrap();
    }
    std::process::exit(0);
}

fn features(wiring: Wiring) -> u32 {
    let mut features = UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    if wiring.scan {
        features |= UFFD_FEATURE_WP_ASYNC;
    }
    if wiring.all_events {
        features |= UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP;
    }
    features
}

fn mode(wiring: Wiring) -> u64 {
    match (wiring.restore && !wiring.mapped, wiring.scan) {
        (false, false) if wiring.mapped => 0,
        (true, true) => MISSING | WP,
        (true, false) => MISSING,
        (false, _) => WP,
    }
}

/// Lines of `PAGE OFFSET FILE`.
fn map(memory: &Memory) {
    let image = PathBuf::from(std::env::var("STAND_IN_IMAGE").unwrap());
    for line in std::fs::read_to_string(image.with_file_name("pieces")).unwrap().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let file = File::open(image.with_file_name(words[2])).unwrap();
        memory.map(words[0].parse().unwrap(), &file, words[1].parse().unwrap());
    }
}

fn obey(memory: &mut Memory, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let index = |at: usize| number(at) as usize;
    match words[0] {
        "write" => {
            for (word, bytes) in super::random::page(number(2)).as_chunks::<8>().0.iter().enumerate() {
                memory.write_word(index(1), word, u64::from_le_bytes(*bytes));
            }
        }
        "poke" => memory.write_word(index(1), index(2), number(3)),
        "zero" => (0..512).for_each(|word| memory.write_word(index(1), word, 0)),
        "touch" => drop(memory.read_word(index(1), 0)),
        "discard" => memory.discard(index(1), index(2)),
        "relocate" => memory.relocate(index(1), index(2)),
        "unmap" => memory.unmap(index(1), index(2)),
        "fork" => fork(),
        "storm" => storm(memory, index(1), index(2)),
        "syscall" => return by_system_call(memory, index(1)),
        "check" => return check(memory).err().unwrap_or_else(|| "ok".into()),
        other => return format!("unknown command {other}"),
    }
    "ok".into()
}

/// Compares every word of memory with the image, by four threads from different ends.
fn check(memory: &Memory) -> Result<(), String> {
    let image = std::fs::read(std::env::var("STAND_IN_IMAGE").unwrap()).unwrap();
    let count = memory.count();
    assert_eq!(image.len(), count * 4096);
    let check_page = |page: usize| {
        let expected = image[page * 4096..][..4096].as_chunks::<8>().0;
        for (word, (got, expected)) in memory.read(page).iter().zip(expected).enumerate() {
            let expected = u64::from_le_bytes(*expected);
            if *got != expected {
                return Err(format!("page {page} word {word} is {got:#x}, not {expected:#x}"));
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let check_page = &check_page;
                scope.spawn(move || {
                    (0..count)
                        .map(|page| (page + thread * count / 4) % count)
                        .map(|page| if thread % 2 == 0 { page } else { count - 1 - page })
                        .try_for_each(check_page)
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })
}

/// Readers touch all pages while the pages `first ..first + count` are discarded one by one, again and again.
fn storm(memory: &Memory, first: usize, count: usize) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                (0..memory.count())
                    .for_each(|page| drop(memory.read((page * 7 + thread * 13) % memory.count())));
            });
        }
        scope.spawn(move || {
            for _ in 0..4 {
                (first..first + count).for_each(|page| memory.discard(page, 1));
            }
        });
    });
}

/// Has the kernel read a page, as KVM and device emulation do.
fn by_system_call(memory: &Memory, page: usize) -> String {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    // SAFETY: the page stays mapped; the kernel only reads it.
    let sent =
        unsafe { libc::write(std::os::fd::AsRawFd::as_raw_fd(&theirs), memory.address(page).cast(), 4096) };
    assert_eq!(sent, 4096);
    let mut bytes = [0; 4096];
    ours.read_exact(&mut bytes).unwrap();
    u64::from_le_bytes(*bytes.first_chunk().unwrap()).to_string()
}

fn fork() {
    // SAFETY: this process has one thread, and the child only leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: does not return.
        unsafe { libc::_exit(0) };
    }
    assert!(child > 0);
    // SAFETY: a child of ours.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}
