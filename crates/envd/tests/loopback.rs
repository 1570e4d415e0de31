//! Services on loopback, reached from outside. Each test is a network of its own, in which 127.0.0.1 is the loopback of
//! the VM, and the other addresses of its interface are where others look for it.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use common::{Envd, Event, Events, Options};
use rustix::thread::UnshareFlags;
use serde_json::json;

const OUTSIDE: &str = "127.0.0.7";

/// Runs `test` in a network that is gone afterwards.
fn in_a_network(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: a network is no memory; descriptors are not unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn start(name: &str, more: &[&str]) -> Envd {
    let arguments = ["--outside", "lo", "--control-listen", OUTSIDE, "--open"];
    let arguments = [&arguments[..], more].concat();
    Envd::with(name, Options { init: false, arguments: &arguments, ..Options::default() })
}

/// Says its name to whoever connects, and which address each side has.
const SERVER: &str = r#"
use Socket; $| = 1;
my ($name, $address, $port, $protocol) = @ARGV;
socket(S, PF_INET, SOCK_STREAM, $protocol) or die "socket: $!";
setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1);
bind(S, sockaddr_in($port, inet_aton($address))) or die "bind: $!";
listen(S, 5) or die "listen: $!";
print "ready\n";
while (my $peer = accept(C, S)) {
  my @ends = map { inet_ntoa((sockaddr_in($_))[1]) } (getsockname(C), $peer);
  syswrite(C, "$name @ends");
  close C;
}
"#;

const TCP: &str = "6";

/// A program of the sandbox, which listens when this returns. It ends with the agent, or is killed.
struct Service<'a> {
    envd: &'a Envd,
    pid: u32,
    events: Events,
}

impl Service<'_> {
    fn start<'a>(envd: &'a Envd, name: &str, address: &str, port: u16, protocol: &str) -> Service<'a> {
        let args = json!(["-e", SERVER, name, address, port.to_string(), protocol]);
        let message = json!({ "process": { "cmd": "perl", "args": args, "cwd": "/" } });
        let mut events = envd.stream("Start", message, &[]);
        let pid = events.pid();
        assert_eq!(events.next_event(), Some(Event::Stdout(b"ready\n".to_vec())), "{name}");
        Service { envd, pid, events }
    }

    fn kill(self) {
        let message = json!({ "process": { "pid": self.pid }, "signal": "SIGNAL_SIGKILL" });
        assert_eq!(self.envd.call("SendSignal", message).status, 200);
        self.events.finish();
    }
}

fn ask(address: &str, port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((address, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn a_service_on_loopback_is_reached_at_once_and_gone_with_its_socket() {
    in_a_network(|| {
        let envd = start("reach", &[]);
        assert_eq!(ask(OUTSIDE, 7000), None);
        let service = Service::start(&envd, "one", "127.0.0.1", 7000, TCP);
        assert_eq!(ask(OUTSIDE, 7000).unwrap(), format!("one {OUTSIDE} 127.0.0.1"));
        assert_eq!(ask("127.0.0.1", 7000).unwrap(), "one 127.0.0.1 127.0.0.1");
        assert_eq!(ask(OUTSIDE, 7001), None);
        service.kill();
        assert_eq!(ask(OUTSIDE, 7000), None);
        Service::start(&envd, "two", "127.0.0.1", 7000, TCP);
        assert!(ask(OUTSIDE, 7000).unwrap().starts_with("two "));
    });
}

#[test]
fn no_port_is_taken_from_a_program() {
    in_a_network(|| {
        let envd = start("ports", &[]);
        let inner = Service::start(&envd, "inner", "127.0.0.1", 7000, TCP);
        // Its own address goes before loopback.
        let own = Service::start(&envd, "own", OUTSIDE, 7000, TCP);
        assert!(ask(OUTSIDE, 7000).unwrap().starts_with("own "));
        own.kill();
        assert!(ask(OUTSIDE, 7000).unwrap().starts_with("inner "));
        inner.kill();
        let all = Service::start(&envd, "all", "0.0.0.0", 7000, TCP);
        assert!(ask(OUTSIDE, 7000).unwrap().starts_with("all "));
        all.kill();
    });
}

#[test]
fn the_agents_ports_are_not_for_services() {
    in_a_network(|| {
        let envd = start("own-ports", &[]);
        let _service = Service::start(&envd, "false", "127.0.0.1", envd.control_port, TCP);
        let mut stream = TcpStream::connect((OUTSIDE, envd.control_port)).unwrap();
        stream.write_all(b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        assert!(!text.contains("false"), "{text}");
    });
}

#[test]
fn only_the_interface_leads_to_loopback() {
    in_a_network(|| {
        let link = ["link", "add", "eth0", "type", "veth", "peer", "name", "eth1"];
        assert!(Command::new("ip").args(link).status().unwrap().success());
        let envd = start("interface", &["--outside", "eth0"]);
        let _service = Service::start(&envd, "inner", "127.0.0.1", 7000, TCP);
        assert_eq!(ask(OUTSIDE, 7000), None);
        assert!(ask("127.0.0.1", 7000).is_some());
    });
}

#[test]
fn another_network_of_the_sandbox_is_its_own() {
    in_a_network(|| {
        let envd = start("networks", &[]);
        let script = "ip link set lo up && exec perl -e \"$0\" other 127.0.0.1 7000 6";
        let args = json!(["--net", "sh", "-c", script, SERVER]);
        let message = json!({ "process": { "cmd": "unshare", "args": args, "cwd": "/" } });
        let mut events = envd.stream("Start", message, &[]);
        events.pid();
        assert_eq!(events.next_event(), Some(Event::Stdout(b"ready\n".to_vec())));
        assert_eq!(ask(OUTSIDE, 7000), None);
    });
}
