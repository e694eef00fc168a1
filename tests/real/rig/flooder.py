"""Strangers: so many connections from many addresses, a third silent, a third slow, a third garbage. Run by `flood.py` in a namespace.

Argument: {"target": [address, port], "sources": [address, …], "connections", "ramp" and "rate" (connects a second), "seconds", "tls", "seed"}. It keeps
that many open: who is closed comes again, by `rate` at most. Prints one JSON line when all have come, and one at the end. One epoll, no threads.
"""
import errno
import heapq
import json
import random
import select
import socket
import sys
import time
from collections import Counter, deque

asked = json.loads(sys.argv[1])
chance = random.Random(asked["seed"])
TARGET = tuple(asked["target"])
# What an honest client would begin with: STARTUP, or the head of a ClientHello.
STARTUP = bytes.fromhex("040000000100000016") + b"\0\1\0\x0bCQL_VERSION\0\x053.0.0"
HELLO = bytes.fromhex("16030102000100") + bytes([0x01, 0xFC, 3, 3]) + bytes(chance.randrange(256) for _ in range(500))
KINDS = ("silent", "slow", "garbage")
# A slow one says its next byte after so many seconds.
PAUSE = (0.5, 4.0)

poll = select.epoll()
sockets, waiting, due, seen = {}, deque(range(asked["connections"])), [], Counter()
begun = time.monotonic()
end, full = begun + asked["seconds"], False


class Stranger:
    def __init__(self, number):
        self.number, self.kind, self.said = number, KINDS[number % 3], 0
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        self.socket.bind((asked["sources"][number % len(asked["sources"])], 0))
        refused = self.socket.connect_ex(TARGET)
        if refused not in (0, errno.EINPROGRESS):
            raise OSError(refused, "connect")
        sockets[self.socket.fileno()] = self
        poll.register(self.socket.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP)
        seen["attempts"] += 1

    def arrived(self):
        poll.modify(self.socket.fileno(), select.EPOLLIN | select.EPOLLRDHUP)
        seen["arrived"] += 1
        if self.kind == "slow":
            self.later()
        elif self.kind == "garbage":
            self.say(chance.choice((b"GET / HTTP/1.1\r\n\r\n", bytes(chance.randrange(256) for _ in range(chance.randrange(1, 300))),
                                    b"\x04\0\0\0\x01\x7f\xff\xff\xff", b"\x05\0\0\0\x0b\0\xff\xff\xff", HELLO[:chance.randrange(1, 200)])))

    def later(self):
        heapq.heappush(due, (time.monotonic() + chance.uniform(*PAUSE), self.number, id(self), self))

    def next_byte(self):
        whole = HELLO if asked["tls"] else STARTUP
        if self.socket.fileno() >= 0 and self.said < len(whole) - 1:
            if self.say(whole[self.said:self.said + 1]):
                self.said += 1
                self.later()

    def say(self, raw):
        try:
            self.socket.send(raw)
            return True
        except BlockingIOError:
            return True
        except OSError:
            self.leave()
            return False

    def leave(self):
        sockets.pop(self.socket.fileno(), None)
        self.socket.close()  # epoll forgets it
        seen["closed " + self.kind] += 1
        waiting.append(self.number)


came = 0.0
last = begun
peak = 0
while (now := time.monotonic()) < end:
    came = min(200.0, came + (now - last) * (asked["rate"] if full else asked["ramp"]))
    last = now
    while waiting and came >= 1:
        came -= 1
        number = waiting.popleft()
        try:
            Stranger(number)
        except OSError as error:
            seen[f"no connect: {errno.errorcode.get(error.errno)}"] += 1
            waiting.append(number)
            break
    peak = max(peak, len(sockets))
    if not full and seen["attempts"] >= asked["connections"]:
        full = True
        print(json.dumps({"event": "all", "after": round(now - begun, 1)}), flush=True)
    for descriptor, what in poll.poll(0.02, 2000):
        who = sockets.get(descriptor)
        if not who:
            continue
        if what & select.EPOLLOUT and not what & (select.EPOLLERR | select.EPOLLHUP):
            who.arrived()
        elif what & (select.EPOLLERR | select.EPOLLHUP | select.EPOLLRDHUP):
            who.leave()
        elif what & select.EPOLLIN:
            try:
                if not who.socket.recv(4096):
                    who.leave()
            except BlockingIOError:
                pass
            except OSError:
                who.leave()
    while due and due[0][0] <= now:
        heapq.heappop(due)[3].next_byte()
for who in list(sockets.values()):
    who.socket.close()
print(json.dumps({"event": "end", "peak": peak, **seen}), flush=True)
