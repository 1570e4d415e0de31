//! Services that listen on the VM's 127.0.0.1 only are reached from outside as if they listened everywhere.
//!
//! Two small programs in the kernel do it. When a socket of a user's process begins to listen on loopback, the first
//! writes it down; when a connection comes in by the VM's interface, the second looks there and names the socket that
//! gets it. So there is nothing that ticks, no port is taken from anybody, no byte is copied, and a VM that is
//! restored or forked has all of it in its memory. A program that listens on the interface's own address keeps its
//! port; the agent's own two ports are never looked for.
//!
//! The links have names in a `bpf` file system that only root sees, and outlive an agent that is killed.

mod bpf;
mod program;

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};

/// Sockets that listen on loopback at once; a further one is reached from within only.
const SOCKETS_MAX: u32 = 4096;

pub struct Outside<'a> {
    /// Of the processes whose sockets are meant.
    pub cgroup: &'a Path,
    /// By which connections come in, and its address.
    pub interface: &'a str,
    pub address: IpAddr,
    /// The agent's.
    pub ports: [u16; 2],
    /// Where the links are kept. None: with what is returned.
    pub names: Option<PathBuf>,
}

/// Open as long as this lives, unless they have names.
pub struct Links(#[expect(dead_code)] [OwnedFd; 2]);

/// Errors where the kernel lacks what it takes: sandboxes work without.
pub fn reach(outside: &Outside) -> io::Result<Links> {
    let names = outside.names.as_deref();
    if let Some(names) = names {
        if let (Ok(listen), Ok(lookup)) = (bpf::kept(&names.join("listen")), bpf::kept(&names.join("lookup")))
        {
            return Ok(Links([listen, lookup]));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(names)?;
        mount("bpf", names, "bpf", MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV, c"mode=700")?;
    }
    let address = match outside.address {
        IpAddr::V4(address) => program::address(address),
        IpAddr::V6(_) => program::address(Ipv4Addr::UNSPECIFIED),
    };
    let interface = fs::read_to_string(format!("/sys/class/net/{}/ifindex", outside.interface))?;
    let interface = interface.trim().parse().map_err(io::Error::other)?;
    let (network, cgroup) = (File::open("/proc/self/ns/net")?, File::open(outside.cgroup)?);

    let sockets = bpf::sockets(SOCKETS_MAX)?;
    let listen = bpf::load(bpf::SOCK_OPS, &program::on_listen(&sockets, address, bpf::network_cookie()?))?;
    let lookup = bpf::load(bpf::SK_LOOKUP, &program::on_lookup(&sockets, interface, outside.ports))?;
    let lookup = bpf::attach(bpf::SK_LOOKUP, &lookup, network.as_fd())?;
    let listen = bpf::attach(bpf::SOCK_OPS, &listen, cgroup.as_fd())?;
    if let Some(names) = names {
        bpf::keep(&listen, &names.join("listen"))?;
        bpf::keep(&lookup, &names.join("lookup"))?;
    }
    Ok(Links([listen, lookup]))
}
