//! The two programs, instruction by instruction (kernel: bpf/standardization/instruction-set). Fields of the contexts
//! are those of `struct bpf_sock_ops` and `struct bpf_sk_lookup` in linux/bpf.h.

use std::os::fd::{AsRawFd, OwnedFd};

use super::bpf::Instruction;

/// Addresses as the kernel keeps them: network order, read as one number.
pub fn address(ip: std::net::Ipv4Addr) -> u32 {
    u32::from_ne_bytes(ip.octets())
}

const LOOPBACK: std::net::Ipv4Addr = std::net::Ipv4Addr::LOCALHOST;
const INET: u32 = 2;
const TCP: u32 = 6;

/// `BPF_SOCK_OPS_TCP_LISTEN_CB`.
const LISTENS: u32 = 11;

const MAP_LOOKUP_ELEM: i32 = 1;
const SOCK_HASH_UPDATE: i32 = 70;
const SK_RELEASE: i32 = 86;
const GET_NETNS_COOKIE: i32 = 122;
const SK_ASSIGN: i32 = 124;

type Register = u8;
/// Results, arguments, three that calls leave alone, and the end of the stack.
const R0: Register = 0;
const R1: Register = 1;
const R2: Register = 2;
const R3: Register = 3;
const R4: Register = 4;
const CONTEXT: Register = 6;
const R7: Register = 7;
const R8: Register = 8;
const STACK: Register = 10;

/// Of a key on the stack: the address, then the port.
const KEY: i16 = -8;

/// Runs for every socket of the cgroup; one that begins to listen on loopback, or on the address that others use, is
/// written down. Says nothing else to the kernel (`reply` is -1).
pub fn on_listen(sockets: &OwnedFd, outside: u32, network: u64) -> Vec<Instruction> {
    let mut code = Code::default();
    code.copy(CONTEXT, R1);
    code.set(R2, u32::MAX);
    code.store(CONTEXT, 4, R2);
    code.field(R2, 0);
    code.leave_unless(R2, LISTENS);
    code.field(R2, 20);
    code.leave_unless(R2, INET);
    code.field(R7, 28);
    code.field(R8, 68);
    code.skip_if(R7, address(LOOPBACK), 1);
    code.leave_unless(R7, outside);
    // One in another network has other neighbours.
    code.copy(R1, CONTEXT);
    code.call(GET_NETNS_COOKIE);
    code.load(R1, 0, network);
    code.leave_unless_same(R0, R1);
    code.store(STACK, KEY, R7);
    code.store(STACK, KEY + 4, R8);
    code.copy(R1, CONTEXT);
    code.load_map(R2, sockets);
    code.point_at_key(R3);
    code.set(R4, 0);
    code.call(SOCK_HASH_UPDATE);
    code.finish()
}

/// Runs for every packet that opens a connection. One from outside to a port that only loopback has goes to that
/// socket; all others go their usual way.
pub fn on_lookup(sockets: &OwnedFd, interface: u32, closed: [u16; 2]) -> Vec<Instruction> {
    let mut code = Code::default();
    code.copy(CONTEXT, R1);
    code.field(R2, 12);
    code.leave_unless(R2, TCP);
    code.field(R2, 64);
    code.leave_unless(R2, interface);
    code.field(R7, 60);
    for port in closed {
        code.leave_if(R7, port.into());
    }
    code.field(R2, 8);
    code.leave_unless(R2, INET);
    code.field(R8, 40);
    code.find(sockets, R8, R7);
    code.skip_if(R0, 0, 3);
    code.copy(R1, R0);
    code.call(SK_RELEASE);
    code.leave();
    code.set(R8, address(LOOPBACK));
    code.find(sockets, R8, R7);
    code.leave_if_none(R0);
    code.copy(R7, R0);
    code.copy(R1, CONTEXT);
    code.copy(R2, R7);
    code.set(R3, 0);
    code.call(SK_ASSIGN);
    code.copy(R1, R7);
    code.call(SK_RELEASE);
    code.finish()
}

#[derive(Default)]
struct Code {
    instructions: Vec<Instruction>,
    /// Those that jump to the end, wherever that will be.
    leaving: Vec<usize>,
}

impl Code {
    fn push(&mut self, code: u8, to: Register, from: Register, offset: i16, immediate: i32) {
        self.instructions.push(Instruction { code, registers: to | from << 4, offset, immediate });
    }

    fn copy(&mut self, to: Register, from: Register) {
        self.push(0xbf, to, from, 0, 0);
    }

    fn set(&mut self, to: Register, value: u32) {
        self.push(0xb4, to, 0, 0, value as i32);
    }

    /// 32 bits of the context.
    fn field(&mut self, to: Register, offset: i16) {
        self.push(0x61, to, CONTEXT, offset, 0);
    }

    fn store(&mut self, to: Register, offset: i16, from: Register) {
        self.push(0x63, to, from, offset, 0);
    }

    fn load(&mut self, to: Register, kind: u8, value: u64) {
        self.push(0x18, to, kind, 0, value as i32);
        self.push(0, 0, 0, 0, (value >> 32) as i32);
    }

    /// `BPF_PSEUDO_MAP_FD`.
    fn load_map(&mut self, to: Register, map: &OwnedFd) {
        self.load(to, 1, map.as_raw_fd() as u64);
    }

    fn call(&mut self, function: i32) {
        self.push(0x85, 0, 0, 0, function);
    }

    fn point_at_key(&mut self, to: Register) {
        self.copy(to, STACK);
        self.push(0x07, to, 0, 0, KEY.into());
    }

    /// The socket of an address and a port, or 0, in `R0`.
    fn find(&mut self, sockets: &OwnedFd, address: Register, port: Register) {
        self.store(STACK, KEY, address);
        self.store(STACK, KEY + 4, port);
        self.load_map(R1, sockets);
        self.point_at_key(R2);
        self.call(MAP_LOOKUP_ELEM);
    }

    /// Compares 32 bits, or for 0 all of it: what may be a pointer must be.
    fn skip_if(&mut self, register: Register, value: u32, count: i16) {
        let code = if value == 0 { 0x15 } else { 0x16 };
        self.push(code, register, 0, count, value as i32);
    }

    fn leave_with(&mut self, code: u8, left: Register, right: Register, value: u32) {
        self.leaving.push(self.instructions.len());
        self.push(code, left, right, 0, value as i32);
    }

    fn leave(&mut self) {
        self.leave_with(0x05, 0, 0, 0);
    }

    fn leave_if(&mut self, register: Register, value: u32) {
        self.leave_with(0x16, register, 0, value);
    }

    fn leave_if_none(&mut self, register: Register) {
        self.leave_with(0x15, register, 0, 0);
    }

    fn leave_unless(&mut self, register: Register, value: u32) {
        self.leave_with(0x56, register, 0, value);
    }

    fn leave_unless_same(&mut self, left: Register, right: Register) {
        self.leave_with(0x5d, left, right, 0);
    }

    /// The end of both: 1, that the packet or the call may go on.
    fn finish(mut self) -> Vec<Instruction> {
        let end = self.instructions.len();
        for at in self.leaving {
            self.instructions[at].offset = (end - at - 1) as i16;
        }
        let exit = |code, immediate| Instruction { code, registers: 0, offset: 0, immediate };
        self.instructions.extend([exit(0xb4, 1), exit(0x95, 0)]);
        self.instructions
    }
}
