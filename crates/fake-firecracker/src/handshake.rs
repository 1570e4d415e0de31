//! Gives the guest's memory to a pager: one message with the regions and the userfaultfd, on a socket that stays open.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;

use crate::guest_memory::{GuestMemory, PAGE_BYTES};
use crate::refusal::reason;
use crate::uffd::Uffd;
use crate::version::Version;

/// In the order of the message. Both page sizes are bytes, whatever the name.
#[derive(Serialize)]
struct Mapping {
    base_host_virt_addr: u64,
    size: u64,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    page_size: Option<u64>,
    page_size_kib: u64,
}

/// What keeps memory served. Its end of the socket tells the pager that the VMM is gone.
pub struct Link {
    _uffd: Uffd,
    _socket: UnixStream,
}

/// Registers all of `memory` and hands it to whoever listens at `path`. Errors are a message.
pub fn give(memory: &GuestMemory, path: &Path, version: &Version) -> Result<Link, String> {
    let text = |what: &'static str| move |error: io::Error| format!("{what}: {}", reason(&error));
    let uffd = Uffd::open().map_err(text("Failed to UFFD object"))?;
    for region in memory.regions() {
        uffd.register(region.base, region.size_bytes)
            .map_err(text("Failed to register memory address range with the userfaultfd object"))?;
    }
    let socket = UnixStream::connect(path).map_err(text("Failed to connect to UDS Unix stream"))?;
    send(&socket, &message(memory, version), &uffd).map_err(text("Failed to sends file descriptor"))?;
    Ok(Link { _uffd: uffd, _socket: socket })
}

fn message(memory: &GuestMemory, version: &Version) -> Vec<u8> {
    let mappings: Vec<Mapping> = memory
        .regions()
        .map(|region| Mapping {
            base_host_virt_addr: region.base,
            size: region.size_bytes,
            offset: region.offset,
            page_size: version.has(10).then_some(PAGE_BYTES),
            page_size_kib: PAGE_BYTES,
        })
        .collect();
    serde_json::to_vec(&mappings).expect("regions serialise")
}

fn send(socket: &UnixStream, message: &[u8], uffd: &Uffd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [uffd.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)), "there is room for one descriptor");
    let parts = [IoSlice::new(message)];
    let sent = rustix::io::retry_on_intr(|| sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL))?;
    if sent < message.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
}
