"""What was on the wire: tcpdump in a namespace, and of each connection that the server ended first the requests that nobody answered, by
when they passed here. All namespaces are one machine's, so that two captures have the same clock.
"""
import os
import shutil
import signal
import socket
import struct
import subprocess
from dataclasses import dataclass, field

from . import cache, cql
from .wait import until

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
PROXY = b"\r\n\r\n\x00\r\nQUIT\n"


def program():
    """The machine's own, or Debian's."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    if not shutil.which("tcpdump", path=path):
        cache.run("apt-get", "install", "-y", "--no-install-recommends", "tcpdump")
    return shutil.which("tcpdump", path=path)


@dataclass
class Side:
    """One direction: what was said, when, and how it ended."""

    begins: int = 0
    pieces: list = field(default_factory=list)
    fin: float | None = None
    reset: float | None = None

    def said(self):
        """(when, bytes) in the order of the stream, nothing twice."""
        end, out = 0, []
        for at, when, raw in sorted(self.pieces):
            if at > end:
                raise RuntimeError(f"{at - end} bytes of a stream were not captured")
            if at + len(raw) > end:
                out.append((when, raw[end - at:]))
                end = at + len(raw)
        return out


class Connection:
    """From its SYN on. `ended_first` is when the server's FIN passed here, where the client had not ended by then."""

    def __init__(self, client, server):
        self.client, self.server = client, server
        self.asks, self.answers = Side(), Side()

    @property
    def ended_first(self):
        ends = [when for when in (self.asks.fin, self.asks.reset) if when is not None]
        fin = self.answers.fin
        return fin if fin is not None and all(fin < end for end in ends) else None

    def asked(self, opcode):
        """How many requests of this kind."""
        return sum(head[3] == opcode for _, head in frames(self.asks, cql.STARTUP))

    def unanswered(self):
        """(when, opcode) of the requests that have no answer."""
        left = {}
        found = [(when, 0, head) for when, head in frames(self.asks, cql.STARTUP)]
        found += [(when, 1, head) for when, head in frames(self.answers, cql.READY)]
        for when, is_answer, (_, _, stream, opcode, _) in sorted(found, key=lambda item: item[0]):
            if not is_answer:
                left[stream] = (when, opcode)
            elif stream >= 0:
                left.pop(stream, None)
        return list(left.values())


def frames(side, last):
    """(when its first byte passed, head) of each message; in v5 they are in segments behind the first `last`."""
    raw, marks, plain = bytearray(), [], bytearray()

    def moment(at):
        return next(when for end, when in marks if at < end)
    for when, piece in side.said():
        raw += piece
        marks.append((len(raw), when))
    at = 0
    if raw.startswith(PROXY):
        at = 16 + struct.unpack(">H", raw[14:16])[0]
    while at + 9 <= len(raw):
        head = struct.unpack(">BBhBi", raw[at:at + 9])
        if at + 9 + head[4] > len(raw):
            return
        yield moment(at), head
        at += 9 + head[4]
        if head[3] in (last, cql.AUTHENTICATE) and head[0] & 0x7F == 5:
            break
    else:
        return
    # Whose moment is the segment's: a message that is in several has the first one's.
    moments = []
    while at + 6 <= len(raw):
        length = int.from_bytes(raw[at:at + 3], "little") & 0x1FFFF
        if at + 10 + length > len(raw):
            break
        plain += raw[at + 6:at + 6 + length]
        moments.append((len(plain), moment(at)))
        at += 10 + length
    at, turn = 0, 0
    while at + 9 <= len(plain):
        head = struct.unpack(">BBhBi", plain[at:at + 9])
        while moments[turn][0] <= at:
            turn += 1
        yield moments[turn][1], head
        at += 9 + head[4]


class Capture:
    """Of the connections to `server` at one of `ports`, until it is stopped, or they are asked for."""

    def __init__(self, namespace, device, server, ports, home):
        home.mkdir(parents=True, exist_ok=True)
        self.servers = {(server, port) for port in ports}
        self.file, self.log = home / f"{namespace}-{device}.pcap", home / f"{namespace}-{device}.log"
        command = [program(), "-i", device, "-n", "-p", "-s", "0", "-B", "32768", "--immediate-mode", "-Z", "root", "--time-stamp-precision=nano", "-w", str(self.file),
                   " or ".join(f"(tcp and {way} host {server} and {way} portrange {ports[0]}-{ports[-1]})" for way in ("src", "dst"))]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(["ip", "netns", "exec", namespace, *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        until("tcpdump listens", lambda: "listening on" in self.log.read_text(), 20, during=self.alive)

    def alive(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"tcpdump ended with {self.process.returncode}:\n{self.log.read_text()}")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=30)

    def connections(self):
        self.stop()
        said = self.log.read_text()
        if "\n0 packets dropped by kernel" not in said:
            raise RuntimeError(f"the capture is not whole:\n{said}")
        return list(self.read())

    def packets(self):
        """(when, source, destination, sequence, flags, payload) of each."""
        raw = self.file.read_bytes()
        if raw[:4] != b"\x4d\x3c\xb2\xa1" or struct.unpack("<I", raw[20:24])[0] != 1:
            raise RuntimeError("not a little-endian Ethernet capture in nanoseconds")
        at = 24
        while at + 16 <= len(raw):
            seconds, nanoseconds, length, whole = struct.unpack("<IIII", raw[at:at + 16])
            packet = raw[at + 16:at + 16 + length]
            at += 16 + length
            if packet[12:14] != b"\x08\x00":
                continue
            if length < whole:
                raise RuntimeError("a packet is cut short")
            ip = packet[14:]
            # What the kernel did not cut yet, being longer than an IP packet, says no length.
            tcp = ip[(ip[0] & 0x0F) * 4:struct.unpack(">H", ip[2:4])[0] or None]
            ports = struct.unpack(">HH", tcp[:4])
            addresses = socket.inet_ntoa(ip[12:16]), socket.inet_ntoa(ip[16:20])
            yield (seconds + nanoseconds / 1e9, (addresses[0], ports[0]), (addresses[1], ports[1]), struct.unpack(">I", tcp[4:8])[0], tcp[13], tcp[(tcp[12] >> 4) * 4:])

    def read(self):
        live = {}
        for when, source, destination, sequence, flags, payload in self.packets():
            is_ask = destination in self.servers
            key = (source, destination) if is_ask else (destination, source)
            if is_ask and flags & SYN and not (key in live and not payload and live[key].asks.begins == sequence + 1):
                if key in live:
                    yield live.pop(key)
                live[key] = Connection(*key)
            connection = live.get(key)
            if not connection:
                continue  # it is older than the capture
            side = connection.asks if is_ask else connection.answers
            if flags & SYN:
                side.begins = sequence + 1
            at = (sequence - side.begins) & 0xFFFFFFFF
            if payload and at < 1 << 31:
                side.pieces.append((at, when, payload))
            if flags & FIN and side.fin is None:
                side.fin = when
            if flags & RST and side.reset is None:
                side.reset = when
        yield from live.values()
