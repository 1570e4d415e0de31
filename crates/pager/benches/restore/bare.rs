//! The alternative: a server of a few lines, this program started once more. It waits in `read`, installs the one page
//! that is missing, and does nothing else.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::cpu::pin;
use crate::mmap::FileMap;
use crate::uffd::{Event, EventBuffer, Install, Uffd};

const PAGE: u64 = 4096;

pub struct Bare(Child);

impl Bare {
    /// Serves the content of `image` to who connects to `socket`, on `cpu`. `ahead`: pages to install before.
    pub fn start(socket: &Path, image: &Path, ahead: Option<&Path>, cpu: usize) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("bare").arg(image).arg(cpu.to_string()).args(ahead);
        Self(command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the child process runs.
pub fn run(image: &str, cpu: usize, ahead: Option<&str>) {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    pin(None, &[cpu]);
    let image = FileMap::new(File::open(image).unwrap()).unwrap();
    let listener = UnixListener::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let (socket, _) = listener.accept().unwrap();
    let (base, size, fd) = receive(&socket.into());
    let uffd = Uffd::adopt(fd, base, size).unwrap();
    let install = |page: u64| {
        let from = &image.bytes()[(page * PAGE) as usize..][..PAGE as usize];
        let done = uffd.copy(base + page * PAGE, from, true, true);
        assert!(matches!(done, Install::Done | Install::Gone), "{done:?}");
    };
    if let Some(file) = ahead {
        crate::touch::load(file).iter().for_each(|touch| install(touch.page));
    }
    let mut events = EventBuffer::new();
    loop {
        uffd.wait(&mut events).unwrap();
        for event in events.take() {
            if let Event::Missing { address, .. } = event {
                install((address - base) / PAGE);
            }
        }
    }
}

/// Address and bytes of the one region, and the userfaultfd.
fn receive(socket: &OwnedFd) -> (u64, u64, OwnedFd) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 4096];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let count = recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
    let regions: serde_json::Value = serde_json::from_slice(&bytes[..count]).unwrap();
    let number = |name: &str| regions[0][name].as_u64().unwrap();
    let fds = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    (number("base_host_virt_addr"), number("size"), fds.unwrap())
}
