//! Firecracker's handshake: a JSON list of regions with the userfaultfd beside it, once, on a stream socket
//! that then stays open. Its end tells the pager that the VMM died.

use std::ffi::c_void;
use std::fmt::Write;
use std::mem::{size_of, zeroed};

use crate::abort::abort;

const PAGE_BYTES: u64 = 4096;

/// Where the VMM has a part of guest memory; bytes.
pub struct Region {
    pub base: u64,
    pub size: u64,
    pub offset: u64,
}

/// Connects to the pager and gives it the regions and the userfaultfd. The socket stays open.
pub fn shake_hands(path: &str, regions: &[Region], uffd: i32) {
    let socket = connect(path);
    let mut json = String::from("[");
    for (index, Region { base, size, offset }) in regions.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(
            json,
            r#"{comma}{{"base_host_virt_addr":{base},"size":{size},"offset":{offset},"page_size":{PAGE_BYTES},"page_size_kib":{PAGE_BYTES}}}"#
        );
    }
    json.push(']');
    send(socket, json.as_bytes(), uffd);
}

fn connect(path: &str) -> i32 {
    // SAFETY: plain arguments.
    let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        abort("no socket");
    }
    // SAFETY: all-zero bytes are a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if path.len() >= address.sun_path.len() {
        abort("THAW_PAGER_SOCKET is too long");
    }
    for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
        *to = from as libc::c_char;
    }
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the address is whole and `length` bytes long.
    if unsafe { libc::connect(socket, (&raw const address).cast(), length) } != 0 {
        abort("no pager at THAW_PAGER_SOCKET");
    }
    socket
}

fn send(socket: i32, json: &[u8], fd: i32) {
    const FD_BYTES: u32 = size_of::<i32>() as u32;
    let mut control = [0u64; 8];
    let mut part = libc::iovec { iov_base: json.as_ptr() as *mut c_void, iov_len: json.len() };
    // SAFETY: all-zero bytes are a valid msghdr; `control` is aligned for a cmsghdr and has room for one
    // descriptor; sendmsg only reads what the header points to, which outlives the call.
    let sent = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(FD_BYTES) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(FD_BYTES) as _;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
        libc::sendmsg(socket, &message, libc::MSG_NOSIGNAL)
    };
    if sent != json.len() as isize {
        abort("the handshake was not sent");
    }
}
