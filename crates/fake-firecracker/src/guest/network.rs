//! The guest's network: one interface with the address that every guest has, and the agent's two ports.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as Time;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address};

use super::agent::{CONTROL_PORT, Conversation, Effect, GUEST_PORT};
use super::kernel::Kernel;
use crate::devices::network::Mac;
use crate::tap::Tap;

const ADDRESS: Ipv4Address = Ipv4Address::new(169, 254, 0, 21);
const PREFIX_BITS: u8 = 30;
const GATEWAY: Ipv4Address = Ipv4Address::new(169, 254, 0, 22);
/// Ports, and how many may be connected at once.
const LISTENERS: [(u16, usize); 2] = [(CONTROL_PORT, 24), (GUEST_PORT, 32)];
const RECEIVE_BYTES: usize = 32 * 1024;
const SEND_BYTES: usize = 64 * 1024;
/// With the Ethernet header.
const FRAME_BYTES_MAX: usize = 1514;

pub struct Network {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    seats: Vec<Seat>,
    epoch: Instant,
}

/// A socket that listens on a port, or talks with whoever came.
struct Seat {
    port: u16,
    socket: SocketHandle,
    talk: Conversation,
}

impl Network {
    pub fn new(tap: Tap, mac: Mac) -> Network {
        let mut wire = Wire { tap, frame: [0; FRAME_BYTES_MAX] };
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        let mut seed = [0; 8];
        // Eight bytes are never handed out in part.
        let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
        config.random_seed = u64::from_ne_bytes(seed);
        let mut interface = Interface::new(config, &mut wire, Time::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::Ipv4(ADDRESS), PREFIX_BITS))
                .expect("there is room for one");
        });
        interface.routes_mut().add_default_ipv4_route(GATEWAY).expect("there is room for one");
        let mut sockets = SocketSet::new(Vec::new());
        let mut seats = Vec::new();
        for (port, count) in LISTENERS {
            for _ in 0..count {
                let socket = sockets.add(listening(port));
                seats.push(Seat { port, socket, talk: Conversation::default() });
            }
        }
        Network { wire, interface, sockets, seats, epoch: Instant::now() }
    }

    /// Does what there is to do. Gives when to be called again, if no frame comes before.
    pub fn turn(&mut self, kernel: &mut Kernel) -> Option<Instant> {
        let now = Time::from_micros(self.epoch.elapsed().as_micros() as i64);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        let mut effect = Effect::None;
        for seat in &mut self.seats {
            let socket = self.sockets.get_mut::<Socket>(seat.socket);
            effect = effect.or(seat.turn(socket, kernel));
        }
        if effect == Effect::NewLife {
            self.cut_guest_connections();
        }
        // Only out: what came in now would wait until something else comes.
        self.interface.poll_egress(now, &mut self.wire, &mut self.sockets);
        let delay = self.interface.poll_delay(now, &self.sockets);
        let wire_at = delay.map(|delay| Instant::now() + Duration::from_micros(delay.total_micros()));
        self.seats.iter().filter_map(|seat| seat.talk.wake_at()).chain(wire_at).min()
    }

    fn cut_guest_connections(&mut self) {
        for seat in self.seats.iter().filter(|seat| seat.port == GUEST_PORT) {
            let socket = self.sockets.get_mut::<Socket>(seat.socket);
            if !socket.is_listening() {
                socket.abort();
            }
        }
    }
}

impl AsFd for Network {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.tap.as_fd()
    }
}

fn listening(port: u16) -> Socket<'static> {
    let mut socket =
        Socket::new(SocketBuffer::new(vec![0; RECEIVE_BYTES]), SocketBuffer::new(vec![0; SEND_BYTES]));
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket.listen(port).expect("a port that is not zero");
    socket
}

impl Seat {
    fn turn(&mut self, socket: &mut Socket<'_>, kernel: &mut Kernel) -> Effect {
        match socket.state() {
            State::Listen | State::SynReceived => return Effect::None,
            // The seat is free for the next one; the host does not use the port of the last one so soon.
            State::TimeWait | State::Closed => {
                socket.abort();
                socket.listen(self.port).expect("the socket is closed");
                self.talk = Conversation::default();
                return Effect::None;
            }
            _ => {}
        }
        let is_host = socket.remote_endpoint().is_some_and(|peer| peer.addr == IpAddress::Ipv4(GATEWAY));
        if self.port == CONTROL_PORT && !is_host {
            socket.abort();
            return Effect::None;
        }
        // Whatever ran for a peer that is gone ends with it.
        if !socket.may_recv() && !socket.can_recv() {
            socket.close();
            return Effect::None;
        }
        while socket.can_recv() {
            let inbound = &mut self.talk.inbound;
            let taken = socket.recv(|bytes| {
                inbound.extend_from_slice(bytes);
                (bytes.len(), ())
            });
            if taken.is_err() {
                break;
            }
        }
        let effect = self.talk.turn(kernel, self.port);
        if let Ok(sent) = socket.send_slice(&self.talk.outbound) {
            self.talk.outbound.drain(..sent);
        }
        if self.talk.last && self.talk.is_idle() {
            socket.close();
        }
        effect
    }
}

/// The tap as smoltcp sees it.
struct Wire {
    tap: Tap,
    frame: [u8; FRAME_BYTES_MAX],
}

struct Received(Vec<u8>);
struct Sender<'a>(&'a Tap);

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities
    }

    fn receive(&mut self, _now: Time) -> Option<(Received, Sender<'_>)> {
        let count = self.tap.receive(&mut self.frame)?;
        Some((Received(self.frame[..count].to_vec()), Sender(&self.tap)))
    }

    fn transmit(&mut self, _now: Time) -> Option<Sender<'_>> {
        Some(Sender(&self.tap))
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut frame = vec![0; length];
        let filled = fill(&mut frame);
        self.0.send(&frame);
        filled
    }
}
