//! The command line.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// What the agent is told when it starts. The defaults are those of a VM.
#[derive(Debug)]
pub struct Args {
    /// Address and port of the E2B guest protocol.
    pub listen: IpAddr,
    pub port: u16,
    /// Address, port and interface of the control port, and the only peer it answers.
    pub control_listen: IpAddr,
    pub control_port: u16,
    pub control_interface: Option<String>,
    pub control_peer: IpAddr,
    /// The cgroup of the users' processes; made when missing.
    pub cgroup: Option<PathBuf>,
    /// By which interface services on loopback are reached; None: from within only.
    pub outside: Option<String>,
    /// Root of the files that carry the VM's identity (`etc/hostname` and so on).
    pub root: PathBuf,
    /// Outside a VM: clock, entropy and hostname of the machine stay as they are.
    pub dev: bool,
    /// Serve 49983 without waiting for an identity.
    pub open: bool,
}

const USAGE: &str = "usage: thaw-envd [--port N] [--control-port N] [--listen IP] [--control-listen IP] \
[--control-peer IP] [--control-interface NAME] [--cgroup DIR] [--outside NAME] [--dev ROOT] [--open]";

impl Args {
    /// Errors are for the terminal.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
        let mut args = Args {
            listen: Ipv4Addr::UNSPECIFIED.into(),
            port: 49983,
            control_listen: Ipv4Addr::new(169, 254, 0, 21).into(),
            control_port: 49982,
            control_interface: Some("eth0".into()),
            control_peer: Ipv4Addr::new(169, 254, 0, 22).into(),
            cgroup: Some("/sys/fs/cgroup/user".into()),
            outside: Some("eth0".into()),
            root: "/".into(),
            dev: false,
            open: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value\n{USAGE}"));
            match word.as_str() {
                "--port" => args.port = parse(&value()?)?,
                "--control-port" => args.control_port = parse(&value()?)?,
                "--listen" => args.listen = parse(&value()?)?,
                "--control-listen" => args.control_listen = parse(&value()?)?,
                "--control-peer" => args.control_peer = parse(&value()?)?,
                "--control-interface" => args.control_interface = Some(value()?),
                "--cgroup" => args.cgroup = Some(value()?.into()),
                "--outside" => args.outside = Some(value()?),
                "--dev" => {
                    args.dev = true;
                    args.root = value()?.into();
                    args.listen = Ipv4Addr::LOCALHOST.into();
                    args.control_listen = args.listen;
                    args.control_peer = args.listen;
                    args.control_interface = None;
                    args.cgroup = None;
                    args.outside = None;
                }
                "--open" => args.open = true,
                _ => return Err(format!("unknown argument {word}\n{USAGE}")),
            }
        }
        Ok(args)
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("bad value {text}\n{USAGE}"))
}
