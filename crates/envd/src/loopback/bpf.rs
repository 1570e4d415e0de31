//! What is needed of bpf(2): loading two programs, tying them to a cgroup and a network, and keeping them by name.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use socket2::{Domain, Socket, Type};

/// An instruction as `struct bpf_insn` has it: code, registers, offset, immediate.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instruction {
    pub code: u8,
    /// The destination in the lower four bits, the source in the upper.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// Commands.
const MAP_CREATE: u32 = 0;
const PROG_LOAD: u32 = 5;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const LINK_CREATE: u32 = 28;

/// Which hook a program is for: its type, and the place it is attached to.
#[derive(Clone, Copy)]
pub struct Hook {
    program: u32,
    attach: u32,
}

pub const SOCK_OPS: Hook = Hook { program: 13, attach: 3 };
pub const SK_LOOKUP: Hook = Hook { program: 30, attach: 36 };

const SOCKHASH: u32 = 18;
const KEY_BYTES: u32 = 8;

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries_max: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Obj {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `Attr` is the part of `union bpf_attr` that the command reads.
fn bpf<Attr>(command: u32, attr: &Attr) -> io::Result<i32> {
    // SAFETY: the kernel reads as many bytes as it is told, and what they point to lives as long as the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<Attr>()) };
    match result {
        0.. => Ok(result as i32),
        _ => Err(io::Error::last_os_error()),
    }
}

fn bpf_fd<Attr>(command: u32, attr: &Attr) -> io::Result<OwnedFd> {
    // SAFETY: the commands that use this give a new descriptor, which nobody else has.
    bpf(command, attr).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

fn address<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>() as u64
}

/// Sockets by an address and a port. One that is closed leaves by itself.
pub fn sockets(entries_max: u32) -> io::Result<OwnedFd> {
    let attr = MapCreate { kind: SOCKHASH, key_bytes: KEY_BYTES, value_bytes: 4, entries_max, flags: 0 };
    bpf_fd(MAP_CREATE, &attr)
}

/// Errors with EINVAL or EACCES are the verifier's.
pub fn load(hook: Hook, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let attr = ProgLoad {
        kind: hook.program,
        instruction_count: instructions.len() as u32,
        instructions: address(instructions),
        license: address::<CStr>(license),
        attach: if hook.attach == SK_LOOKUP.attach { hook.attach } else { 0 },
        ..ProgLoad::default()
    };
    bpf_fd(PROG_LOAD, &attr)
}

/// Attached as long as the link is open or has a name.
pub fn attach(hook: Hook, program: &OwnedFd, target: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (program, target) = (number(program.as_fd()), number(target));
    bpf_fd(LINK_CREATE, &LinkCreate { program, target, attach: hook.attach, flags: 0 })
}

/// `path` is on a file system of the kind `bpf`.
pub fn keep(link: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf(OBJ_PIN, &Obj { path: address(path.as_c_str()), fd: number(link.as_fd()), flags: 0 }).map(|_| ())
}

pub fn kept(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf_fd(OBJ_GET, &Obj { path: address(path.as_c_str()), fd: 0, flags: 0 })
}

/// socket(7), of Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The number by which the kernel's programs know the network that the agent is in.
pub fn network_cookie() -> io::Result<u64> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let mut cookie = MaybeUninit::<u64>::uninit();
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to where there is room for them.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            cookie.as_mut_ptr().cast(),
            &mut length,
        )
    };
    match result {
        // SAFETY: written by the call.
        0 => Ok(unsafe { cookie.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}
