"""Tries to reach addresses by TCP, UDP and ICMP, all at once, and prints what answered as JSON.

Standard input: {"wait_s": n, "ports": [...], "addresses": [...]}. TCP counts as reached when the connection is made, UDP and
ICMP when an answer comes back.
"""
import errno
import json
import select
import socket
import struct
import sys
import time


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def main():
    wish = json.load(sys.stdin)
    reached = []
    waiting = {}
    poll = select.poll()

    def watch(sock, events, what):
        waiting[sock.fileno()] = (sock, what)
        poll.register(sock, events)

    for address in wish["addresses"]:
        for port in wish["ports"]:
            tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            tcp.setblocking(False)
            code = tcp.connect_ex((address, port))
            if code in (0, errno.EINPROGRESS):
                watch(tcp, select.POLLOUT, f"tcp {address} {port}")
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.setblocking(False)
            try:
                udp.connect((address, port))
                udp.send(b"thaw")
                watch(udp, select.POLLIN, f"udp {address} {port}")
            except OSError:
                pass
        icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        icmp.setblocking(False)
        body = struct.pack("!BBHHH", 8, 0, 0, 4711, 1) + b"thawthaw"
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        try:
            icmp.connect((address, 0))
            icmp.send(body)
            watch(icmp, select.POLLIN, f"icmp {address}")
        except OSError:
            pass

    deadline = time.monotonic() + wish["wait_s"]
    while waiting and time.monotonic() < deadline:
        for fd, _ in poll.poll(200):
            sock, what = waiting[fd]
            if what.startswith("tcp"):
                done, good = True, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            else:
                try:
                    answer = sock.recv(2000)
                    # A raw socket also gets errors that some router sends: only an echo reply counts.
                    good = not what.startswith("icmp") or answer[(answer[0] & 15) * 4] == 0
                    done = good
                except OSError:
                    done, good = True, False
            if good:
                reached.append(what)
            if done:
                poll.unregister(sock)
                del waiting[fd]
    print(json.dumps(sorted(reached)))


main()
