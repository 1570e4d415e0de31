//! Packets of JSON with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde_json::{Value, json};

/// The largest packet either side sends; larger results go into a file whose descriptor is in the request.
pub const PACKET_BYTES_MAX: usize = 128 * 1024;

/// The most descriptors of one packet; more go ahead in packets of their own (`HOLD`).
const FDS_MAX: usize = 64;

/// The op of a packet whose descriptors belong to the next request: they count before that one's own. Not answered.
pub(crate) const HOLD: &str = "hold";

/// One end of a control channel. Sending and receiving are each one system call, so threads may share it.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

/// One packet: its JSON and the descriptors that came with it, in the order they were sent.
#[derive(Debug)]
pub struct Message {
    pub json: Value,
    pub fds: Vec<OwnedFd>,
}

impl Channel {
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Two connected ends, closed on exec.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (left, right) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self::new(left), Self::new(right)))
    }

    /// Sends a message with any number of descriptors; only requests may carry more than one packet takes.
    pub fn send(&self, json: &Value, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut rest = fds;
        while rest.len() > FDS_MAX {
            let (ahead, behind) = rest.split_at(FDS_MAX);
            self.send_packet(&json!({"op": HOLD}), ahead)?;
            rest = behind;
        }
        self.send_packet(json, rest)
    }

    fn send_packet(&self, json: &Value, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(json)?;
        if bytes.len() > PACKET_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "control packet too large"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        rustix::io::retry_on_intr(|| {
            sendmsg(&self.fd, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }

    /// The next packet, or `None` when the other end is closed.
    pub fn recv(&self) -> io::Result<Option<Message>> {
        let mut bytes = vec![0; PACKET_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(&self.fd, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        });
        let received = match received {
            Ok(received) => received,
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "control packet was cut"));
        }
        Ok(Some(Message { json: serde_json::from_slice(&bytes[..received.bytes])?, fds }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
