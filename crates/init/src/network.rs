//! Addresses of the sandbox, set by rtnetlink (rtnetlink(7), <linux/rtnetlink.h>): no program is run for it.
//! They are the same in every sandbox: 169.254.0.21/30 on eth0, default route by 169.254.0.22.

mod netlink;

use std::fs;
use std::net::Ipv4Addr;

use crate::failure::{Context, Failure};
use netlink::Netlink;

const DEVICE: &str = "eth0";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 21);
const PREFIX_LENGTH: u8 = 30;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 22);

/// Brings up lo and eth0. A VM without a network card is left with lo alone.
pub fn bring_up() -> Result<(), Failure> {
    let mut netlink = Netlink::open().context("open rtnetlink")?;
    netlink.link_up(index_of("lo")?).context("bring up lo")?;
    let Ok(index) = index_of(DEVICE) else {
        eprintln!("thaw-init: no {DEVICE}");
        return Ok(());
    };
    netlink.add_address(index, ADDRESS, PREFIX_LENGTH).context("set the address")?;
    netlink.link_up(index).context("bring up eth0")?;
    netlink.add_default_route(index, GATEWAY).context("set the default route")
}

fn index_of(device: &str) -> Result<u32, Failure> {
    let path = format!("/sys/class/net/{device}/ifindex");
    let text = fs::read_to_string(&path).context(&path)?;
    text.trim().parse().context(&path)
}
