"""Namespaces, bridges, addresses, and the guard in each client's namespace.

Two bridges: one joins the nodes and the gateway (this machine's root namespace too, so that the rig and a capture
program can reach the nodes), one joins the gateway and the driver programs. Nothing forwards between them: what a
client can reach is the gateway's address. A client has a default route all the same, because a packet that has no
route is never counted: it goes to the guard, an nft rule that counts and rejects everything but the gateway.

Everything that is made here is named by PREFIX, so that `clear` can remove what an earlier run left, whatever its end was.
"""
import fcntl
import json
import os
import shutil
import signal
import subprocess
import zlib
from pathlib import Path

from . import cache

# `CQLGATE_RIG=1` … `9`: a rig beside the usual one, with names and addresses of its own.
RIG = int(os.environ.get("CQLGATE_RIG") or 0)
PREFIX = f"cql{RIG}" if RIG else "cqlg"
NODES = f"10.213.{77 + 10 * RIG}"
CLIENTS = f"10.213.{78 + 10 * RIG}"
NODE_BRIDGE, CLIENT_BRIDGE = f"{PREFIX}.n", f"{PREFIX}.c"
CONTROL_PLANE = f"{NODES}.2"
# Addresses of Services: nobody routes them, they only have to be somewhere.
SERVICES = f"10.213.{79 + 10 * RIG}.0/24"
GATEWAY = f"{CLIENTS}.1"
# A second address of the gateway: where its load balancer's name leads some day.
GATEWAY_LATER = f"{CLIENTS}.2"
# Where each node has an address of its own: the gateway's of the three, in the order of their ports.
ADDRESSES = (GATEWAY, GATEWAY_LATER, f"{CLIENTS}.9")
LOCK = Path(f"/tmp/{PREFIX}-real.lock")
# `ip netns exec NAME` shows its processes what is in NAME here in place of the machine's own /etc.
ETC = Path("/etc/netns")


def ip(*args, check=True):
    return subprocess.run(["ip", *args], check=check, capture_output=True, text=True).stdout


class Busy(Exception):
    """Another rig holds the lock; its pid is the message's last word."""


def lock():
    """Holds the machine's only rig until this process ends. Returns the open file: keep it."""
    held = open(LOCK, "a+")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.seek(0)
        raise Busy(f"another rig is running, pid {held.read().strip()}") from None
    held.truncate(0)
    held.write(str(os.getpid()))
    held.flush()
    return held


def namespaces():
    return [line.split()[0] for line in ip("netns", "list").splitlines() if line.startswith(f"{PREFIX}-")]


def clear():
    """Kills what runs in our namespaces (by pid) and removes them and the bridges."""
    for name in namespaces():
        for pid in ip("netns", "pids", name, check=False).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        ip("netns", "del", name, check=False)
    for line in ip("-o", "link", "show").splitlines():
        name = line.split(":")[1].strip().split("@")[0]
        if name.startswith(f"{PREFIX}."):
            ip("link", "del", name, check=False)
    for place in ETC.glob(f"{PREFIX}-*"):
        shutil.rmtree(place)


def resolver(full, text):
    """The resolv.conf of every process that is started in namespace `full` from now on."""
    (ETC / full).mkdir(parents=True, exist_ok=True)
    (ETC / full / "resolv.conf").write_text(text)


def bridges():
    ip("link", "add", NODE_BRIDGE, "type", "bridge")
    ip("addr", "add", f"{NODES}.1/24", "dev", NODE_BRIDGE)
    ip("link", "set", NODE_BRIDGE, "up")
    ip("link", "add", CLIENT_BRIDGE, "type", "bridge")
    ip("link", "set", CLIENT_BRIDGE, "up")


def namespace(name):
    """`PREFIX-NAME` with a working loopback."""
    full = f"{PREFIX}-{name}"
    if full in namespaces():
        ip("netns", "del", full)
    ip("netns", "add", full)
    ip("-n", full, "link", "set", "lo", "up")
    return full


def outer(full, device):
    """The bridge's end of that leg. Interface names have at most 15 characters."""
    return f"{PREFIX}.{zlib.crc32(f'{full} {device}'.encode()):08x}"


def attach(full, bridge, address, device="eth0", default=None):
    """One leg of namespace `full` on `bridge`; `address` with its prefix length."""
    leg = outer(full, device)
    # A deleted namespace gives its interfaces back some time later.
    ip("link", "del", leg, check=False)
    ip("link", "add", leg, "type", "veth", "peer", "name", device, "netns", full)
    ip("link", "set", leg, "master", bridge, "up")
    ip("-n", full, "addr", "add", address, "dev", device)
    ip("-n", full, "link", "set", device, "up")
    if default:
        ip("-n", full, "route", "add", "default", "via", default)
    return leg


def move(full, old, new, default):
    """Node namespace `full` gives up address `old` for `new` (both without prefix length)."""
    ip("-n", full, "addr", "del", f"{old}/24", "dev", "eth0")
    ip("-n", full, "addr", "add", f"{new}/24", "dev", "eth0")
    ip("-n", full, "route", "replace", "default", "via", default)


def gateway_inside(number=1):
    return f"{NODES}.{99 + number}"


def gateway_namespace(number=1):
    """Gateway 1 has the addresses that clients dial; another one beside it has one that nobody is told."""
    full = namespace("gw" if number == 1 else f"gw{number}")
    attach(full, NODE_BRIDGE, f"{gateway_inside(number)}/24")
    if number == 1:
        attach(full, CLIENT_BRIDGE, f"{GATEWAY}/24", device="eth1")
        ip("-n", full, "addr", "add", f"{GATEWAY_LATER}/24", "dev", "eth1")
    else:
        attach(full, CLIENT_BRIDGE, f"{CLIENTS}.{1 + number}/24", device="eth1")
    return full


def nft(full, *command):
    return subprocess.run(["ip", "netns", "exec", full, *cache.nft(), *command], check=True, capture_output=True, text=True).stdout


def refuse(full, address, ports):
    """From now on `address` of namespace `full` resets every TCP connection to one of `ports`, and nothing else is reset; no ports: nothing is."""
    nft(full, "table inet elsewhere { }")
    nft(full, "delete table inet elsewhere")
    if ports:
        nft(full, f"""table inet elsewhere {{
            chain in {{
                type filter hook input priority 0
                ip daddr {address} tcp dport {{ {", ".join(map(str, ports))} }} reject with tcp reset
            }}
        }}""")


class Client:
    """A namespace for one driver program. `leaked()` counts its packets to anything but the gateway, which has the addresses `to`."""

    def __init__(self, name, number, direct=False, to=(GATEWAY, GATEWAY_LATER)):
        self.direct = direct
        self.full = namespace(name)
        if direct:
            attach(self.full, NODE_BRIDGE, f"{NODES}.{200 + number}/24", default=f"{NODES}.1")
            return
        attach(self.full, CLIENT_BRIDGE, f"{CLIENTS}.{10 + number}/24", default=GATEWAY)
        self.guard(gateway=to)

    def guard(self, **counted):
        """Packets to the addresses of each name are counted under it, and all others are leaks."""
        accepted = "\n".join(f"ip daddr {{ {', '.join(addresses)} }} counter name {name} accept" for name, addresses in counted.items())
        # Neighbour and router solicitations of IPv6 are the kernel's, not the driver's.
        rules = f"""table inet guard {{
            {"; ".join(f"counter {name} {{ }}" for name in ("leaked", *counted))}
            chain out {{
                type filter hook output priority 0
                oif lo accept
                {accepted}
                icmpv6 type {{ nd-neighbor-solicit, nd-router-solicit, mld2-listener-report }} accept
                counter name leaked reject
            }}
        }}"""
        nft(self.full, rules)

    def packets(self, name):
        """How many there were of one name."""
        for item in json.loads(nft(self.full, "-j", "list counters"))["nftables"]:
            if item.get("counter", {}).get("name") == name:
                return item["counter"]["packets"]
        raise RuntimeError(f"the guard's counter {name} is gone")

    def leaked(self):
        return 0 if self.direct else self.packets("leaked")

    def reset(self):
        if not self.direct:
            nft(self.full, "reset counters")


class Insider(Client):
    """A client among the nodes, which reaches them and the gateway's inner address: its packets to `nodes` and to `gateway` are counted apart."""

    def __init__(self, name, number, nodes):
        self.direct, self.address = False, f"{NODES}.{200 + number}"
        self.full = namespace(name)
        attach(self.full, NODE_BRIDGE, f"{self.address}/24", default=f"{NODES}.1")
        self.guard(nodes=nodes, gateway=[gateway_inside()])
