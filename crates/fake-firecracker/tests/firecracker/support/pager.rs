//! A pager of a few lines: takes the handshake, and serves pages from a memory file until told otherwise.

use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use linux_raw_sys::general::{
    UFFD_EVENT_PAGEFAULT, UFFD_EVENT_REMOVE, UFFD_PAGEFAULT_FLAG_WRITE, uffdio_copy, uffdio_range,
    uffdio_zeropage,
};
use linux_raw_sys::ioctl::{UFFDIO_COPY, UFFDIO_ZEROPAGE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

const PAGE_BYTES: u64 = 4096;
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// Offsets into memory.
    Fault {
        page: u64,
        write: bool,
    },
    Remove {
        start: u64,
        end: u64,
    },
}

#[derive(Default)]
struct Seen {
    handshake: Mutex<Vec<u8>>,
    events: Mutex<Vec<Event>>,
    vmm_gone: AtomicBool,
}

pub struct Pager {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    serve: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub socket: PathBuf,
}

impl Pager {
    /// Listens at `socket` and serves the content of `memory`.
    pub fn start(socket: &Path, memory: &Path) -> Pager {
        let listener = UnixListener::bind(socket).unwrap();
        let memory = File::open(memory).unwrap();
        let (seen, stop, serve) =
            (Arc::new(Seen::default()), Arc::default(), Arc::new(AtomicBool::new(true)));
        let run = Run {
            seen: seen.clone(),
            stop: Arc::clone(&stop),
            serve: serve.clone(),
            memory,
            removed: Vec::new(),
        };
        let thread = std::thread::spawn(move || run.run(&listener));
        Pager { seen, stop, serve, thread: Some(thread), socket: socket.to_path_buf() }
    }

    /// Whether it answers faults; it reads events in any case.
    pub fn set_serving(&self, serving: bool) {
        self.serve.store(serving, Ordering::Relaxed);
    }

    /// As if it was killed.
    pub fn die(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub fn handshake(&self) -> String {
        String::from_utf8(self.seen.handshake.lock().unwrap().clone()).unwrap()
    }

    pub fn events(&self) -> Vec<Event> {
        self.seen.events.lock().unwrap().clone()
    }

    pub fn saw_vmm_go(&self) -> bool {
        self.seen.vmm_gone.load(Ordering::Relaxed)
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        self.die();
        let _ = std::fs::remove_file(&self.socket);
    }
}

struct Run {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    serve: Arc<AtomicBool>,
    memory: File,
    removed: Vec<std::ops::Range<u64>>,
}

impl Run {
    fn run(mut self, listener: &UnixListener) {
        while !self.stop.load(Ordering::Relaxed) && !ready([listener])[0] {}
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        let (mut socket, _) = listener.accept().unwrap();
        let (message, uffd) = receive(&socket);
        let regions: serde_json::Value = serde_json::from_slice(&message).unwrap();
        let base = regions[0]["base_host_virt_addr"].as_u64().unwrap();
        *self.seen.handshake.lock().unwrap() = message;
        let mut waiting = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let [event, end] = ready([&uffd, &socket]);
            if end && matches!(socket.read(&mut [0]), Ok(0)) {
                self.seen.vmm_gone.store(true, Ordering::Relaxed);
                break;
            }
            if event {
                self.take_event(&uffd, base, &mut waiting);
            }
            if self.serve.load(Ordering::Relaxed) {
                waiting.drain(..).for_each(|page| self.install(&uffd, base, page));
            }
        }
    }

    fn take_event(&mut self, uffd: &OwnedFd, base: u64, waiting: &mut Vec<u64>) {
        let mut bytes = [0; 32];
        if rustix::io::read(uffd, &mut bytes).is_err() {
            return;
        }
        let word = |at: usize| u64::from_ne_bytes(*bytes[at * 8..].first_chunk().unwrap());
        let event = match u32::from(bytes[0]) {
            UFFD_EVENT_PAGEFAULT => {
                let page = (word(2) - base) / PAGE_BYTES * PAGE_BYTES;
                waiting.push(page);
                Event::Fault { page, write: word(1) & u64::from(UFFD_PAGEFAULT_FLAG_WRITE) != 0 }
            }
            UFFD_EVENT_REMOVE => {
                let (start, end) = (word(1) - base, word(2) - base);
                self.removed.push(start..end);
                Event::Remove { start, end }
            }
            other => panic!("event {other}"),
        };
        self.seen.events.lock().unwrap().push(event);
    }

    fn install(&self, uffd: &OwnedFd, base: u64, page: u64) {
        if self.removed.iter().any(|range| range.contains(&page)) {
            let range = uffdio_range { start: base + page, len: PAGE_BYTES };
            let mut zero = uffdio_zeropage { range, mode: 0, zeropage: 0 };
            // SAFETY: the structure this request takes. It fails when the VMM is gone, which the socket tells.
            unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_ZEROPAGE as _, &raw mut zero) };
            return;
        }
        let mut bytes = [0; PAGE_BYTES as usize];
        self.memory.read_exact_at(&mut bytes, page).unwrap();
        let mut copy =
            uffdio_copy { dst: base + page, src: bytes.as_ptr() as u64, len: PAGE_BYTES, mode: 0, copy: 0 };
        // SAFETY: the structure this request takes, and `bytes` is a page. As above.
        unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_COPY as _, &raw mut copy) };
    }
}

/// Which of them have something to read, after a while at the latest.
fn ready<const COUNT: usize>(fds: [&dyn AsFd; COUNT]) -> [bool; COUNT] {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
    retry_on_intr(|| poll(&mut polled, Some(&LOOK_EVERY))).unwrap();
    polled.map(|fd| !fd.revents().is_empty())
}

/// The message and the one descriptor beside it.
fn receive(socket: &UnixStream) -> (Vec<u8>, OwnedFd) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; 4096];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received =
        retry_on_intr(|| recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)).unwrap();
    bytes.truncate(received.bytes);
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    assert_eq!(fds.len(), 1);
    (bytes, fds.remove(0))
}
