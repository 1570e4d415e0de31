//! A network namespace of a test's own with the host's end of a guest's network; removed when dropped.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::folder::unique;
use super::vmm::PATIENCE;

pub const TAP: &str = "tap0";
const GATEWAY: &str = "169.254.0.22/30";
const ADDRESS: [u8; 4] = [169, 254, 0, 21];

pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new() -> Namespace {
        let namespace = Namespace { name: unique() };
        ip(&["netns", "add", &namespace.name]);
        let in_it = |args: &[&str]| ip(&[&["-n", &namespace.name], args].concat());
        in_it(&["tuntap", "add", TAP, "mode", "tap"]);
        in_it(&["addr", "add", GATEWAY, "dev", TAP]);
        in_it(&["link", "set", TAP, "up"]);
        namespace
    }

    pub fn try_connect(&self, port: u16, timeout: Duration) -> io::Result<TcpStream> {
        let address = SocketAddr::from((ADDRESS, port));
        let stream = self.enter(|| TcpStream::connect_timeout(&address, timeout))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    pub fn connect(&self, port: u16) -> TcpStream {
        self.try_connect(port, PATIENCE).unwrap()
    }

    /// Runs on a thread of its own, since a thread can't simply come back.
    fn enter<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                run()
            });
            inside.join().unwrap()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().unwrap().success(), "ip {args:?}");
}
