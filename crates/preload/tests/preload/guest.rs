//! This test program started once more, with the library in front: maps its memory as QEMU does, then obeys lines
//! on its standard input, a socket.

use std::ffi::{CString, OsStr, c_void};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};

use crate::pager::Pager;

pub const MEMORY_BYTES: usize = 64 * 4096;
pub const DISK_BYTES: u64 = 1 << 20;
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
    let disk = std::env::var("THAW_DISK_PATH").ok().map(|path| open_as_qemu(&path));
    let memory = map_as_qemu(&file, &maps);
    if std::env::var("GUEST_WRITES").is_ok() {
        // SAFETY: the first page of the mapping.
        unsafe { memory.cast::<u64>().write_volatile(1) };
    }
    let mut out = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    writeln!(out, "{}", memory as u64).unwrap();
    for line in BufReader::new(out.try_clone().unwrap()).lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let word = |page: &str| memory.cast::<u64>().wrapping_add(page.parse::<usize>().unwrap() * 512);
        let answer = match words[0] {
            "flags" => flags(memory as u64),
            "discard" => discard(word(words[1])),
            "allocate" => allocate(),
            "disk" => use_disk(disk.as_ref().unwrap()),
            "translate" => translate(words[1].parse().unwrap()),
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

/// Twice the same disk, on which nothing can be written before it is the sandbox's.
fn open_as_qemu(path: &str) -> [File; 2] {
    let path = CString::new(path).unwrap();
    let open = || {
        // SAFETY: a C string; the descriptor is this function's own.
        let file = unsafe { File::from_raw_fd(libc::open64(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC)) };
        assert_eq!(file.metadata().unwrap().len(), DISK_BYTES);
        assert!(file.write_at(b"lost", 0).is_err());
        assert!(file.set_len(0).is_err());
        file
    };
    [open(), open()]
}

/// What both descriptors read, before something is written by each.
fn use_disk(disk: &[File; 2]) -> String {
    let read = |file: &File| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let texts = disk.each_ref().map(read);
    for (file, at) in disk.iter().zip([8, 16]) {
        file.write_all_at(b"kept", at).unwrap();
    }
    texts.join(" ")
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

/// The page faults of using 8 MiB in small blocks after the heap was trimmed, in a thread of their own.
fn allocate() -> String {
    const BLOCK_BYTES: usize = 64 << 10;
    // SAFETY: takes a number.
    unsafe { libc::malloc_trim(0) };
    let faults = || {
        // SAFETY: all-zero bytes are a valid rusage, which the call fills.
        unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
            usage.ru_minflt
        }
    };
    let work = move || {
        let before = faults();
        let blocks: Vec<Vec<u8>> = (0..128).map(|value| vec![value; BLOCK_BYTES]).collect();
        assert!(blocks.iter().all(|block| block.len() == BLOCK_BYTES));
        faults() - before
    };
    std::thread::spawn(work).join().unwrap().to_string()
}

/// How many KiB are there, from its start on, of 64 MiB made usable for code as QEMU does, in regions of so many MiB.
fn translate(region_mib: usize) -> String {
    const BYTES: usize = 64 << 20;
    const PAGE_BYTES: usize = 4096;
    let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let usable = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let mut present = vec![0u8; BYTES / PAGE_BYTES];
    // SAFETY: memory of this function alone, and a byte for each of its pages.
    unsafe {
        let buffer = libc::mmap(std::ptr::null_mut(), BYTES, libc::PROT_NONE, reserve, -1, 0);
        for region in 0..(64 / region_mib) {
            let start = buffer.byte_add(region * (region_mib << 20));
            assert_eq!(libc::mprotect(start, (region_mib << 20) - PAGE_BYTES, usable), 0);
        }
        assert_eq!(libc::mincore(buffer, BYTES, present.as_mut_ptr()), 0);
    }
    ((present.iter().filter(|page| **page & 1 == 1).count() * PAGE_BYTES) >> 10).to_string()
}
