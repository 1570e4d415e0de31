/** The rules of a host and of a slot, as nft reads them. */
import { SPECIAL_RANGES } from '@thaw/api';
import {
  type Block,
  formatRange,
  GATEWAY_ADDRESS,
  GUEST_ADDRESS,
  linkPrefix,
  type SlotAddresses,
  TAP,
} from './addresses.ts';

/** The guest agent's control port: root's alone. */
const CONTROL_PORT = 49982;
/** Packets for DNS that a guest may send in a second, and at once. */
const DNS_RATE = 'rate over 100/second burst 200 packets';

export interface FirewallOptions {
  block: Block;
  /** The interface guests may leave by; without one nothing leaves. */
  uplink: string | undefined;
  /** Users besides root that may connect to guests. */
  clientUids: readonly number[];
  /** Thaw itself switched on the uplink's forwarding: nobody else's traffic may profit from it. */
  guardUplink: boolean;
  /** Where the host answers DNS, by UDP and TCP. */
  dns: { address: string; port: number };
}

export function tableName(instance: string): string {
  return `thaw_${instance}`;
}

/**
 * The instance's table without any slot. DNS of a guest that may reach domains goes to the host's forwarder; a flow
 * to port 53 that began before that, and so is not led there, ends.
 */
export function hostRules({ block, uplink, clientUids, guardUplink, dns }: FirewallOptions): string {
  const slots = `"${linkPrefix(block.instance)}*"`;
  const clients = [0, ...clientUids].join(', ');
  const leave = uplink === undefined ? '' : `iifname ${slots} oifname "${uplink}" accept`;
  const guard = uplink === undefined || !guardUplink ? '' : `iifname "${uplink}" ct state new drop`;
  const masquerade =
    uplink === undefined ? '' : `ip saddr ${formatRange(block.links)} oifname "${uplink}" masquerade`;
  return `
table inet ${tableName(block.instance)} {
  set special { type ipv4_addr; flags interval; elements = { ${SPECIAL_RANGES.join(', ')} } }
  set clients { typeof meta skuid; elements = { ${clients} } }
  set pairs { type ifname . ipv4_addr; }
  set open { type ifname; }
  set limited { type ifname; }
  set offline { type ifname; }
  set named { type ifname; }
  set allow { type ifname . ipv4_addr; flags interval; }
  set deny { type ifname . ipv4_addr; flags interval; }
  set resolved { type ifname . ipv4_addr; flags timeout; }
  set lingering { type ifname . ipv4_addr; }
  set asking { type ifname; size 65535; flags dynamic, timeout; timeout 1m; }

  chain ingress {
    type filter hook prerouting priority mangle; policy accept;
    iifname ${slots} jump from_slot
  }
  chain questions {
    update @asking { iifname limit ${DNS_RATE} } drop
    accept
  }
  chain limits {
    iifname @named meta l4proto { tcp, udp } th dport 53 goto questions
    iifname . ip daddr @allow return
    iifname . ip daddr @resolved return
    ct state established iifname . ip daddr @lingering return
    iifname . ip daddr @deny drop
    iifname @offline drop
  }
  chain from_slot {
    meta nfproto != ipv4 drop
    iifname . ip saddr != @pairs drop
    ct state invalid drop
    ct direction reply ct state established,related accept
    iifname != @open drop
    iifname @limited jump limits
    ct state established,related accept
    fib daddr type != unicast drop
    ip daddr @special drop
  }
  chain answered_here {
    type nat hook prerouting priority dstnat - 5; policy accept;
    iifname @named meta l4proto { tcp, udp } th dport 53 dnat ip to ${dns.address}:${dns.port}
  }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname ${slots} ct direction reply ct state established,related accept
    iifname @named ip daddr ${dns.address} meta l4proto { tcp, udp } ct original proto-dst 53 th dport ${dns.port} accept
    iifname ${slots} drop
    ip daddr ${dns.address} meta l4proto { tcp, udp } th dport ${dns.port} drop
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    oifname ${slots} meta nfproto ipv4 ct direction reply ct state established,related accept
    oifname ${slots} drop
    iifname @named meta l4proto { tcp, udp } ct original proto-dst 53 drop
    ${leave}
    iifname ${slots} drop
    ${guard}
  }
  chain output {
    type filter hook output priority filter; policy accept;
    oifname ${slots} jump to_slot
    oifname != ${slots} ip saddr ${dns.address} jump to_server
  }
  chain to_slot {
    meta nfproto != ipv4 drop
    ct state established,related accept
    meta skuid 0 accept
    tcp dport ${CONTROL_PORT} drop
    meta skuid @clients accept
    drop
  }
  chain to_server {
    fib daddr type != unicast drop
    ip daddr @special drop
    meta skuid 0 meta l4proto { tcp, udp } th dport 53 accept
    drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ${masquerade}
  }
}`;
}

/**
 * The rules inside a slot's namespace: the guest speaks with its one address, the host appears to it as its gateway.
 * A guest's packet for a connection of before its snapshot gets a reset, so that it does not wait for an answer.
 */
export function slotRules(slot: SlotAddresses): string {
  return `
table inet thaw {
  chain ingress {
    type filter hook prerouting priority mangle; policy accept;
    meta nfproto != ipv4 drop
    iifname "${TAP}" ip saddr != ${GUEST_ADDRESS} drop
  }
  chain input {
    type filter hook input priority filter; policy drop;
    iifname "${TAP}" ip daddr ${GATEWAY_ADDRESS} meta l4proto tcp reject with tcp reset
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    iifname "${TAP}" oifname "eth0" accept
    iifname "eth0" oifname "${TAP}" ct status dnat accept
    iifname "eth0" oifname "${TAP}" ct state established,related accept
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    iifname "eth0" ip daddr ${slot.hostAddress} dnat ip to ${GUEST_ADDRESS}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "eth0" ip saddr ${GUEST_ADDRESS} snat ip to ${slot.innerAddress}
    oifname "${TAP}" snat ip to ${GATEWAY_ADDRESS}
  }
}`;
}
