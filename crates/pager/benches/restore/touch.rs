//! The VMM's side of a measurement: this program started once more. It has memory, hands it to a pager, and touches what
//! it is told on its standard input, answering each line with one: nanoseconds for `touch`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use linux_raw_sys::general::{
    UFFD_FEATURE_EVENT_REMOVE, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_WP_ASYNC,
};

use crate::cpu::pin;
use crate::memory::{MISSING, Memory, WP, send};
use crate::working_set::{MEMORY_PAGES, Touch};

pub struct Toucher {
    pub child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Where its memory comes from.
pub enum Backing<'a> {
    /// The Unix socket of a server.
    Served(&'a Path),
    /// A file, mapped privately.
    Mapped(&'a Path),
}

impl Toucher {
    /// Runs on `cpu`. Its memory is handed over when this returns.
    pub fn start(backing: &Backing<'_>, cpu: usize) -> Self {
        let (kind, path) = match backing {
            Backing::Served(path) => ("served", path),
            Backing::Mapped(path) => ("mapped", path),
        };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["toucher", kind])
            .arg(path)
            .arg(cpu.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut toucher = Self { child, commands, answers };
        assert_eq!(toucher.answer(), "ready");
        toucher
    }

    /// Reads what is to be touched, so that `touch` need not.
    pub fn load(&mut self, file: &Path) {
        assert_eq!(self.ask(&format!("load {}", file.display())), "ok");
    }

    /// Nanoseconds from the first touch to the last.
    pub fn touch(&mut self) -> f64 {
        self.ask("touch").parse().unwrap()
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Toucher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `Toucher::load` reads: a word for each touch.
pub fn save(touches: &[Touch], file: &Path) {
    let word = |touch: &Touch| (touch.page << 1 | u64::from(touch.write)).to_le_bytes();
    std::fs::write(file, touches.iter().flat_map(word).collect::<Vec<u8>>()).unwrap();
}

pub fn load(file: &str) -> Vec<Touch> {
    let bytes = std::fs::read(file).unwrap();
    let touch = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        Touch { page: word >> 1, write: word & 1 == 1 }
    };
    bytes.as_chunks::<8>().0.iter().map(touch).collect()
}

/// What the child process runs.
pub fn run(kind: &str, path: &str, cpu: usize) {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    pin(None, &[cpu]);
    let pages = MEMORY_PAGES as usize;
    let memory = match kind {
        "mapped" => Memory::of_file(&File::open(path).unwrap(), pages),
        _ => Memory::new(&[pages]),
    };
    // Both stay open as long as the memory is served.
    let _served = (kind == "served").then(|| {
        let features = UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_ASYNC;
        let uffd = memory.register(features, MISSING | WP);
        let socket = UnixStream::connect(path).unwrap();
        send(&socket, memory.json().as_bytes(), &[uffd.as_fd()]);
        (uffd, socket)
    });
    println!("ready");
    let mut touches = Vec::new();
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("load", file)) => {
                touches = load(file);
                println!("ok");
            }
            _ => println!("{}", touch(&memory, &touches)),
        }
    }
}

/// Writes change a page as a guest would: one word of it.
fn touch(memory: &Memory, touches: &[Touch]) -> u128 {
    let started = Instant::now();
    let mut sum = 0u64;
    for touch in touches {
        if touch.write {
            memory.write_word(touch.page as usize, 1, touch.page);
        } else {
            sum = sum.wrapping_add(memory.read_word(touch.page as usize, 0));
        }
    }
    std::hint::black_box(sum);
    started.elapsed().as_nanos()
}
