//! The three rtnetlink requests that a sandbox needs, each acknowledged by the kernel.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;

/// Bytes of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;

pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    pub fn link_up(&mut self, index: u32) -> io::Result<()> {
        // struct ifinfomsg: family, pad, type, index, flags, change mask
        let mut body = vec![0, 0, 0, 0];
        body.extend(index.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        self.request(RTM_NEWLINK, 0, &body)
    }

    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix_length: u8) -> io::Result<()> {
        // struct ifaddrmsg: family, prefix length, flags, scope, index
        let mut body = vec![AF_INET, prefix_length, 0, RT_SCOPE_UNIVERSE];
        body.extend(index.to_ne_bytes());
        push_attribute(&mut body, IFA_LOCAL, &address.octets());
        push_attribute(&mut body, IFA_ADDRESS, &address.octets());
        self.request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body)
    }

    pub fn add_default_route(&mut self, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
        // struct rtmsg: family, destination and source length, tos, table, protocol, scope, type, flags
        let mut body =
            vec![AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0, 0, 0, 0];
        push_attribute(&mut body, RTA_GATEWAY, &gateway.octets());
        push_attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
        self.request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let message = encode(kind, NLM_F_REQUEST | NLM_F_ACK | flags, self.sequence, body);
        sendto(&self.socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0; 1024];
        let (length, _) = recv(&self.socket, &mut answer, RecvFlags::empty())?;
        decode_ack(&answer[..length], self.sequence)
    }
}

fn encode(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = (HEADER_BYTES + body.len()) as u32;
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    message
}

/// `struct rtattr` and its value; every value here is 4 bytes, so that no padding follows.
fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8; 4]) {
    body.extend(8u16.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

/// An acknowledgement is NLMSG_ERROR with error 0, else the negated errno.
fn decode_ack(answer: &[u8], sequence: u32) -> io::Result<()> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed rtnetlink answer");
    let word =
        |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).ok_or_else(malformed);
    let kind = u16::from_ne_bytes(answer.get(4..6).and_then(|b| b.try_into().ok()).ok_or_else(malformed)?);
    if kind != NLMSG_ERROR || u32::from_ne_bytes(word(8)?) != sequence {
        return Err(malformed());
    }
    match i32::from_ne_bytes(word(HEADER_BYTES)?) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_a_header_and_attributes() {
        let mut body = vec![AF_INET, 30, 0, 0];
        body.extend(2u32.to_ne_bytes());
        push_attribute(&mut body, IFA_LOCAL, &[169, 254, 0, 21]);
        let message = encode(RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK, 7, &body);
        assert_eq!(message.len(), 32);
        assert_eq!(message[..4], 32u32.to_ne_bytes());
        assert_eq!(message[8..12], 7u32.to_ne_bytes());
        assert_eq!(message[24..], [8, 0, 2, 0, 169, 254, 0, 21]);
    }

    #[test]
    fn reads_acknowledgements() {
        let ack = encode(NLMSG_ERROR, 0, 3, &0i32.to_ne_bytes());
        assert!(decode_ack(&ack, 3).is_ok());
        assert!(decode_ack(&ack, 4).is_err());
        assert!(decode_ack(&ack[..10], 3).is_err());
        let refused = encode(NLMSG_ERROR, 0, 3, &(-19i32).to_ne_bytes());
        assert_eq!(decode_ack(&refused, 3).unwrap_err().raw_os_error(), Some(19));
    }

    #[test]
    fn the_kernel_takes_the_requests() {
        let mut netlink = Netlink::open().unwrap();
        let refused = netlink.link_up(u32::MAX >> 1).unwrap_err();
        assert!(refused.raw_os_error().is_some(), "{refused}");
    }
}
