//! userfaultfd: events in, pages out. See `Documentation/admin-guide/mm/userfaultfd.rst` of the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use linux_raw_sys::general::{
    UFFD_EVENT_FORK, UFFD_EVENT_PAGEFAULT, UFFD_EVENT_REMAP, UFFD_EVENT_REMOVE, UFFD_EVENT_UNMAP,
    UFFD_PAGEFAULT_FLAG_MINOR, UFFD_PAGEFAULT_FLAG_WP, UFFD_PAGEFAULT_FLAG_WRITE, uffdio_copy, uffdio_range,
    uffdio_writeprotect, uffdio_zeropage,
};
use linux_raw_sys::ioctl::{UFFDIO_COPY, UFFDIO_WAKE, UFFDIO_WRITEPROTECT, UFFDIO_ZEROPAGE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// `UFFDIO_COPY_MODE_WP`: install the page write-protected, that is, not yet written.
const COPY_MODE_WP: u64 = 2;
/// Of copies and zero pages: who waits there goes on waiting.
const MODE_DONTWAKE: u64 = 1;
const WRITEPROTECT_MODE_DONTWAKE: u64 = 2;

const EVENT_BYTES: usize = 32;
/// How many events one read takes at most.
pub const EVENTS_MAX: usize = 128;

pub struct Uffd {
    fd: OwnedFd,
    /// Reads of it wait for something to read.
    blocks: AtomicBool,
}

/// What the kernel tells about registered memory. Addresses are the VMM's.
pub enum Event {
    /// A thread waits for a page that is not there.
    Missing {
        address: u64,
        /// It waits to write there.
        write: bool,
    },
    /// A thread waits to write to a protected page (never with asynchronous write tracking).
    Protected {
        address: u64,
    },
    /// The range was discarded: it reads as zero from now on.
    Remove {
        start: u64,
        end: u64,
    },
    /// The range is no longer mapped.
    Unmap {
        start: u64,
        end: u64,
    },
    Remap {
        from: u64,
        to: u64,
        length: u64,
    },
    /// The VMM forked; the descriptor is the child's userfaultfd.
    Fork {
        uffd: OwnedFd,
    },
    /// A kind nobody asked for.
    Other {
        kind: u8,
    },
}

/// What became of an attempt to install pages.
#[derive(Debug, PartialEq, Eq)]
pub enum Install {
    Done,
    /// So many bytes, then something was in the way.
    Part(u64),
    /// The first page is there already.
    Present,
    /// The range is changing: an event must be read first.
    Busy,
    /// The memory is not there any more, or the whole process.
    Gone,
    /// The range can't be write-protected (it is not registered for it), or another argument is wrong.
    Refused,
    Failed(i32),
}

/// The bytes that one read of events fills.
pub struct EventBuffer {
    bytes: [u8; EVENT_BYTES * EVENTS_MAX],
    count: usize,
}

impl EventBuffer {
    pub fn new() -> Self {
        Self { bytes: [0; EVENT_BYTES * EVENTS_MAX], count: 0 }
    }

    /// Whether more events may be waiting than the last read took.
    pub fn is_full(&self) -> bool {
        self.count == EVENTS_MAX
    }

    /// Hands out the events of the last read, once.
    pub fn take(&mut self) -> impl Iterator<Item = Event> + '_ {
        let count = std::mem::take(&mut self.count);
        self.bytes.as_chunks::<EVENT_BYTES>().0[..count].iter().map(decode)
    }
}

impl Uffd {
    /// Takes a descriptor that a peer claims to be a userfaultfd in use: waking who waits in its memory at `start`
    /// does no harm, and fails on anything else.
    pub fn adopt(fd: OwnedFd, start: u64, length: u64) -> io::Result<Self> {
        // Whoever shares it may have left it either way.
        let blocks = !fcntl_getfl(&fd)?.contains(OFlags::NONBLOCK);
        let uffd = Self { fd, blocks: AtomicBool::new(blocks) };
        uffd.wake(start, length)?;
        Ok(uffd)
    }

    /// Reads what is waiting into `buffer`; nothing is no error.
    pub fn read(&self, buffer: &mut EventBuffer) -> io::Result<()> {
        self.set_blocking(false)?;
        self.fill(buffer)
    }

    /// Waits until something can be read, and reads it: a call less than to poll before.
    pub fn wait(&self, buffer: &mut EventBuffer) -> io::Result<()> {
        self.set_blocking(true)?;
        self.fill(buffer)
    }

    /// Waits until something can be read; whether it can.
    pub fn poll(&self, limit: Option<&Timespec>) -> io::Result<bool> {
        self.set_blocking(false)?;
        let ready = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], limit))?;
        Ok(ready > 0)
    }

    fn set_blocking(&self, blocks: bool) -> io::Result<()> {
        if self.blocks.load(Ordering::Relaxed) != blocks {
            let mut flags = fcntl_getfl(&self.fd)?;
            flags.set(OFlags::NONBLOCK, !blocks);
            fcntl_setfl(&self.fd, flags)?;
            self.blocks.store(blocks, Ordering::Relaxed);
        }
        Ok(())
    }

    fn fill(&self, buffer: &mut EventBuffer) -> io::Result<()> {
        buffer.count = match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut buffer.bytes)) {
            Ok(bytes) => bytes / EVENT_BYTES,
            Err(rustix::io::Errno::AGAIN) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }

    /// Copies `from` to the VMM's address `to`. With `protect` the pages count as unwritten.
    pub fn copy(&self, to: u64, from: &[u8], protect: bool, wake: bool) -> Install {
        let mode = if protect { COPY_MODE_WP } else { 0 } | if wake { 0 } else { MODE_DONTWAKE };
        let mut arg =
            uffdio_copy { dst: to, src: from.as_ptr() as u64, len: from.len() as u64, mode, copy: 0 };
        // SAFETY: `arg` is the structure this request takes and `from` is readable for its whole length; the
        // kernel writes to the VMM's memory and to `arg.copy` only.
        let error = unsafe { ioctl(&self.fd, UFFDIO_COPY, &mut arg) };
        outcome(error, arg.copy)
    }

    /// Maps the zero page over `length` bytes at `to`.
    pub fn zero(&self, to: u64, length: u64, wake: bool) -> Install {
        let range = uffdio_range { start: to, len: length };
        let mut arg = uffdio_zeropage { range, mode: if wake { 0 } else { MODE_DONTWAKE }, zeropage: 0 };
        // SAFETY: `arg` is the structure this request takes; the kernel writes to `arg.zeropage` only.
        let error = unsafe { ioctl(&self.fd, UFFDIO_ZEROPAGE, &mut arg) };
        outcome(error, arg.zeropage)
    }

    /// Lets the threads that wait in the range fault again.
    pub fn wake(&self, start: u64, length: u64) -> io::Result<()> {
        let mut arg = uffdio_range { start, len: length };
        // SAFETY: `arg` is the structure this request takes.
        unsafe { ioctl(&self.fd, UFFDIO_WAKE, &mut arg) }.map_or(Ok(()), |errno| Err(errno.into()))
    }

    /// Lifts the write protection of a range; `wake` those who wait there.
    pub fn unprotect(&self, start: u64, length: u64, wake: bool) -> io::Result<()> {
        let mode = if wake { 0 } else { WRITEPROTECT_MODE_DONTWAKE };
        let mut arg = uffdio_writeprotect { range: uffdio_range { start, len: length }, mode };
        // SAFETY: `arg` is the structure this request takes.
        unsafe { ioctl(&self.fd, UFFDIO_WRITEPROTECT, &mut arg) }.map_or(Ok(()), |errno| Err(errno.into()))
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// # Safety
/// `arg` must be what `request` reads and writes, and every pointer in it good for that.
unsafe fn ioctl<T>(fd: &OwnedFd, request: u32, arg: &mut T) -> Option<rustix::io::Errno> {
    // SAFETY: the caller vouches for `arg`; `fd` is open.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, std::ptr::from_mut(arg)) };
    (result < 0).then(|| {
        rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
    })
}

/// `done` is the kernel's own count: bytes installed, or a negative error number.
fn outcome(error: Option<rustix::io::Errno>, done: i64) -> Install {
    use rustix::io::Errno;
    match error {
        None => Install::Done,
        Some(Errno::AGAIN) if done > 0 => Install::Part(done as u64),
        Some(Errno::AGAIN) => Install::Busy,
        Some(Errno::EXIST) => Install::Present,
        Some(Errno::NOENT | Errno::SRCH) => Install::Gone,
        Some(Errno::INVAL) => Install::Refused,
        Some(errno) => Install::Failed(errno.raw_os_error()),
    }
}

/// `struct uffd_msg`: the kind in the first byte, then from byte 8 on up to three words.
fn decode(bytes: &[u8; EVENT_BYTES]) -> Event {
    let word = |at: usize| u64::from_ne_bytes(bytes.as_chunks::<8>().0[at]);
    let (first, second, third) = (word(1), word(2), word(3));
    match u32::from(bytes[0]) {
        UFFD_EVENT_PAGEFAULT if first & u64::from(UFFD_PAGEFAULT_FLAG_MINOR) != 0 => {
            Event::Other { kind: bytes[0] }
        }
        UFFD_EVENT_PAGEFAULT if first & u64::from(UFFD_PAGEFAULT_FLAG_WP) != 0 => {
            Event::Protected { address: second }
        }
        UFFD_EVENT_PAGEFAULT => {
            Event::Missing { address: second, write: first & u64::from(UFFD_PAGEFAULT_FLAG_WRITE) != 0 }
        }
        UFFD_EVENT_REMOVE => Event::Remove { start: first, end: second },
        UFFD_EVENT_UNMAP => Event::Unmap { start: first, end: second },
        UFFD_EVENT_REMAP => Event::Remap { from: first, to: second, length: third },
        // SAFETY: reading a fork event installed this descriptor here, and only this event names it.
        UFFD_EVENT_FORK => Event::Fork { uffd: unsafe { OwnedFd::from_raw_fd(first as u32 as i32) } },
        _ => Event::Other { kind: bytes[0] },
    }
}
