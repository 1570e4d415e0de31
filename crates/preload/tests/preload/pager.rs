//! The pager's side of the handshake, and one page.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use linux_raw_sys::general::uffdio_copy;
use linux_raw_sys::ioctl::UFFDIO_COPY;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

pub struct Pager {
    pub dir: PathBuf,
    listener: UnixListener,
}

impl Pager {
    pub fn listen() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("thaw-preload-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        let listener = UnixListener::bind(dir.join("pager")).unwrap();
        Self { dir, listener }
    }

    pub fn memory_path(&self) -> PathBuf {
        self.dir.join("memory")
    }

    /// The regions and the userfaultfd of who connects.
    pub fn accept(&self) -> (serde_json::Value, OwnedFd, UnixStream) {
        let (socket, _) = self.listener.accept().unwrap();
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&socket, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        assert_eq!(fds.len(), 1);
        (serde_json::from_slice(&bytes[..received]).unwrap(), fds.pop().unwrap(), socket)
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Answers the next fault with a page whose first word is `value`, unwritten if `protect`.
pub fn serve_one(uffd: &OwnedFd, value: u64, protect: bool) {
    poll(&mut [PollFd::new(uffd, PollFlags::IN)], None).unwrap();
    let mut event = [0u64; 4];
    assert_eq!(rustix::io::read(uffd, bytes_of(&mut event)).unwrap(), 32);
    let mut page = [0u64; 512];
    page[0] = value;
    let mode = if protect { 2 } else { 0 };
    let mut copy = uffdio_copy { dst: event[2] & !4095, src: page.as_ptr() as u64, len: 4096, mode, copy: 0 };
    // SAFETY: the structure this request takes; it reads `page`.
    let done = unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_COPY as libc::c_ulong, &raw mut copy) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn bytes_of(words: &mut [u64; 4]) -> &mut [u8] {
    // SAFETY: any bytes are valid words, and 4 words are 32 bytes.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), 32) }
}
