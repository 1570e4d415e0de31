//! The VMM connects, sends its regions as JSON and its userfaultfd beside them, and says nothing more.
//! This is Firecracker's protocol; QEMU's preload library speaks it too.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketFlags, accept_with, recvmsg,
};

use crate::process::Process;
use crate::regions::Regions;
use crate::uffd::Uffd;
use crate::vmm::Vmm;

const JSON_BYTES_MAX: usize = 64 * 1024;
/// From the connection to the last byte of the handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);
/// The most descriptors the kernel lets one message carry.
const FDS_MAX: usize = 253;

/// Waits for the VMM. Whoever connects and is not it gets refused, told to `refused`, and cannot keep it out.
pub fn await_vmm(
    listener: &OwnedFd,
    peer_uid: u32,
    memory_bytes: u64,
    mut refused: impl FnMut(&str),
) -> std::io::Result<Vmm> {
    loop {
        let mut polled = [PollFd::new(listener, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut polled, None))?;
        let Some(socket) = accept(listener)? else { continue };
        match shake(socket, peer_uid, memory_bytes) {
            Ok(vmm) => return Ok(vmm),
            Err(reason) => refused(&reason),
        }
    }
}

/// The next connection; `None` if it went away again.
pub fn accept(listener: &OwnedFd) -> std::io::Result<Option<OwnedFd>> {
    match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(socket) => Ok(Some(socket)),
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn shake(socket: OwnedFd, peer_uid: u32, memory_bytes: u64) -> Result<Vmm, String> {
    let process = peer(&socket, peer_uid)?;
    let (json, fd) = receive(&socket)?;
    let regions = Regions::parse(&json, memory_bytes)?;
    let uffd = adopt(fd, &regions)?;
    Ok(Vmm::new(process, uffd, socket, regions))
}

/// The VMM of a pager that died: `socket` and `uffd` are those of its handshake.
pub fn take_over(socket: OwnedFd, uffd: OwnedFd, peer_uid: u32, regions: Regions) -> Result<Vmm, String> {
    let process = peer(&socket, peer_uid)?;
    let uffd = adopt(uffd, &regions)?;
    Ok(Vmm::new(process, uffd, socket, regions))
}

fn peer(socket: &OwnedFd, peer_uid: u32) -> Result<Process, String> {
    let peer = socket_peercred(socket).map_err(|error| format!("the peer is unknown: {error}"))?;
    if peer.uid.as_raw() != peer_uid {
        return Err(format!("uid {} connected, {peer_uid} expected", peer.uid.as_raw()));
    }
    let pid = peer.pid.as_raw_nonzero().get();
    Process::open(pid, peer_uid).map_err(|error| format!("process {pid}: {error}"))
}

fn adopt(fd: OwnedFd, regions: &Regions) -> Result<Uffd, String> {
    let first = regions.iter().next().ok_or("no regions")?;
    Uffd::adopt(fd, first.base, first.size)
        .map_err(|error| format!("the descriptor is no working userfaultfd: {error}"))
}

/// Reads until the JSON is whole. It may come in pieces; exactly one descriptor may come with them.
fn receive(socket: &OwnedFd) -> Result<(Vec<u8>, OwnedFd), String> {
    let deadline = Instant::now() + HANDSHAKE_DEADLINE;
    let mut json = Vec::with_capacity(4096);
    let mut fds = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        wait_readable(socket, deadline)?;
        let count = receive_part(socket, &mut chunk, &mut fds)?;
        let Some(count) = count else { continue };
        if count == 0 {
            return Err(format!("the peer closed after {} bytes of its handshake", json.len()));
        }
        if fds.len() > 1 {
            return Err(format!("{} descriptors: one expected", fds.len()));
        }
        json.extend_from_slice(&chunk[..count]);
        if json.len() > JSON_BYTES_MAX {
            return Err(format!("the handshake is longer than {JSON_BYTES_MAX} bytes"));
        }
        if is_whole(&json)? {
            let fd = fds.pop().ok_or("no descriptor came with the handshake")?;
            return Ok((json, fd));
        }
    }
}

fn wait_readable(socket: &OwnedFd, deadline: Instant) -> Result<(), String> {
    let rest = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
    let mut polled = [PollFd::new(socket, PollFlags::IN)];
    match poll(&mut polled, Some(&timeout)) {
        Ok(0) => Err("the peer did not finish its handshake in time".into()),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(format!("handshake: {error}")),
    }
}

/// Bytes received; `None` if there were none yet.
fn receive_part(socket: &OwnedFd, chunk: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<Option<usize>, String> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        match recvmsg(socket, &mut [IoSliceMut::new(chunk)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(Errno::CONNRESET) => return Ok(Some(0)),
            Err(error) => return Err(format!("handshake: {error}")),
        };
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err("more descriptors than a message can carry".into());
    }
    Ok(Some(received.bytes))
}

/// Whether the JSON ended. Only a closing bracket can end it, so nothing else is worth parsing.
fn is_whole(json: &[u8]) -> Result<bool, String> {
    if json.trim_ascii_end().last() != Some(&b']') {
        let open = json.trim_ascii_start().first();
        return if open.is_none_or(|byte| *byte == b'[') {
            Ok(false)
        } else {
            Err("the handshake is no list of regions".into())
        };
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(json) {
        Ok(_) => Ok(true),
        Err(error) if error.is_eof() => Ok(false),
        Err(error) => Err(format!("the handshake is no JSON: {error}")),
    }
}
