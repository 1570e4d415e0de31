//! This test program started once more, with the library in front: maps its memory as QEMU does, then obeys lines
//! on its standard input, a socket.

use std::ffi::{OsStr, c_void};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};

use crate::pager::Pager;

pub const MEMORY_BYTES: usize = 64 * 4096;
/// Above those that the tests open.
const DEVICE_FD: i32 = 500;

pub struct Guest {
    child: Child,
    commands: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Guest {
    pub fn start<V: AsRef<OsStr>>(pager: &Pager, variables: &[(&str, V)]) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = command(pager);
        command
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = command.spawn().unwrap();
        drop(command);
        Self { child, commands: ours.try_clone().unwrap(), answers: BufReader::new(ours) }
    }

    pub fn send(&mut self, line: &str) {
        writeln!(self.commands, "{line}").unwrap();
    }

    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.answer()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What becomes of a guest with one variable changed, or removed.
pub fn run_to_end(pager: &Pager, name: &str, value: Option<&str>) -> Output {
    let mut command = command(pager);
    match value {
        Some(value) => command.env(name, value),
        None => command.env_remove(name),
    };
    command.stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap()
}

/// What becomes of a guest with these variables.
pub fn run_with(pager: &Pager, variables: &[(&'static str, String)]) -> Output {
    let mut command = command(pager);
    command.envs(variables.iter().cloned());
    command.stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap()
}

fn command(pager: &Pager) -> Command {
    let program = std::env::current_exe().unwrap();
    let library = program.parent().unwrap().join("libthaw_preload.so");
    assert!(library.exists(), "{} was not built", library.display());
    let device = File::options().read(true).write(true).open("/dev/userfaultfd").unwrap();
    let mut command = Command::new(&program);
    command
        .args(["--ignored", "--exact", "guest::run", "--nocapture"])
        .env("GUEST_MAPS", "shared")
        .env("LD_PRELOAD", library)
        .env("THAW_MEM_PATH", pager.memory_path())
        .env("THAW_UFFD_DEV_FD", DEVICE_FD.to_string())
        .env("THAW_PAGER_SOCKET", pager.dir.join("pager"))
        .env("THAW_PAGER_MODE", "boot")
        .env("THAW_TRACKER", "scan")
        .stdout(Stdio::null());
    // SAFETY: dup2 and prctl may be called between fork and exec; the closure owns the device until then.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::dup2(device.as_raw_fd(), DEVICE_FD) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command
}

/// Not a test: what the child process runs.
#[test]
#[ignore = "the guest's own process"]
fn run() {
    let Ok(maps) = std::env::var("GUEST_MAPS") else { return };
    let path = std::env::var("THAW_MEM_PATH").unwrap();
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    file.set_len(MEMORY_BYTES as u64).unwrap();
    let memory = map_as_qemu(&file, &maps);
    let mut out = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    writeln!(out, "{}", memory as u64).unwrap();
    for line in BufReader::new(out.try_clone().unwrap()).lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let word = |page: &str| memory.cast::<u64>().wrapping_add(page.parse::<usize>().unwrap() * 512);
        let answer = match words[0] {
            "flags" => flags(memory as u64),
            "discard" => discard(word(words[1])),
            "stretch" => stretch(word(words[1])),
            "write" => {
                // SAFETY: a page within the mapping.
                unsafe { word(words[1]).write_volatile(words[2].parse().unwrap()) };
                words[2].to_owned()
            }
            // SAFETY: a page within the mapping.
            _ => unsafe { word(words[1]).read_volatile() }.to_string(),
        };
        writeln!(out, "{answer}").unwrap();
    }
    std::process::exit(0);
}

/// Reserves a range, maps the file into it, and advises.
fn map_as_qemu(file: &File, maps: &str) -> *mut c_void {
    let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let kind = if maps == "private" { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the file is mapped into a range reserved here, twice the size and aligned to 2 MiB as QEMU does.
    unsafe {
        let reserved =
            libc::mmap(std::ptr::null_mut(), MEMORY_BYTES + (4 << 20), libc::PROT_NONE, reserve, -1, 0);
        let place = ((reserved as usize + (2 << 20)) & !((2 << 20) - 1)) as *mut c_void;
        let memory = libc::mmap64(place, MEMORY_BYTES, prot, kind | libc::MAP_FIXED, file.as_raw_fd(), 0);
        assert_eq!(memory, place);
        if maps == "twice" {
            libc::mmap(std::ptr::null_mut(), MEMORY_BYTES, prot, kind, file.as_raw_fd(), 0);
        }
        for advice in [libc::MADV_DODUMP, libc::MADV_HUGEPAGE, libc::MADV_MERGEABLE, libc::MADV_DONTFORK] {
            assert_eq!(libc::madvise(memory, MEMORY_BYTES, advice), 0, "advice {advice}");
        }
        memory
    }
}

/// A page over the next one of its file.
fn stretch(page: *mut u64) -> String {
    let thread = page as usize;
    // A thread of its own: all of them are limited.
    let grow = move || {
        // SAFETY: where it succeeds it may move a page that this test does not use again.
        let moved = unsafe { libc::mremap(thread as *mut c_void, 4096, 8192, libc::MREMAP_MAYMOVE) };
        if moved == libc::MAP_FAILED { "refused".to_owned() } else { "done".to_owned() }
    };
    std::thread::spawn(grow).join().unwrap()
}

fn discard(page: *mut u64) -> String {
    // SAFETY: a page of the mapping, to which nobody keeps references.
    let result = unsafe { libc::madvise(page.cast(), 4096, libc::MADV_DONTNEED) };
    if result == 0 { "done".into() } else { "refused".into() }
}

/// Which of "mg" (merged) and "hg" (huge) the kernel has noted for the mapping at `start`.
fn flags(start: u64) -> String {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines().skip_while(|line| !line.starts_with(&format!("{start:x}-")));
    let flags = lines.find(|line| line.starts_with("VmFlags:")).unwrap();
    flags.split_whitespace().filter(|flag| ["mg", "hg"].contains(flag)).collect::<Vec<_>>().join(" ")
}
