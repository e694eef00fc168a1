"""Two gateways behind one load balancer, HAProxy with PROXY v2, rolled one after the other under drivers that read all the time: no read may
fail, and no client loses its connections all at once. Then the same with a plain HAProxy in the place of each gateway, to compare.
"""
import json
import signal
import socket
from datetime import datetime

from . import assertions as a
from . import cache, drivers, net
from .certified import adder
from .gateway import FIRST_PORT, Gateway
from .haproxy import DEFAULTS, HAProxy
from .program import Program
from .suites import ring_with_schema
from .wait import until

PORTS = range(FIRST_PORT, FIRST_PORT + 10)
NAMES = ("java", "python", "node", "scylla")
# Whose retry goes to the next host and to no other connection of the same one, where it knows but one host: a read that is on its way
# when its connection is closed fails. At most one for each that was closed, as these read one after the other.
ONE_HOST = ("node",)
# Who reads through a plain proxy at all: nodes' rows lead to where no client comes, and scylla's driver dials them and nothing else.
BEHIND_PLAIN = ("java", "python", "node")
# Seconds: not ready and still accepting, two of the load balancer's checks and more; and over how long connections are closed.
DELAY, SPREAD = 3, 10
# Connections of a driver to each node, where it can be told: half of them are at each gateway.
POOL = 8
# Of fewer connections nothing can be said.
ENOUGH = 4


GLOBAL = "global\n  nbthread 1\n"


class Replica(Gateway):
    """Listens inside, where the load balancer alone comes from."""

    def yaml(self, credentials):
        inside = net.gateway_inside(self.number)
        text = super().yaml(credentials).replace(f"listen: 0.0.0.0:{FIRST_PORT}", f"listen: {inside}:{FIRST_PORT}")
        return text + f"proxy_protocol: {{mode: required, from: [{net.gateway_inside()}]}}\ndrain: {{delay: {DELAY}s, spread: {SPREAD}s}}\n"

    check = "option httpchk GET /readyz"
    send = "send-proxy-v2 check port 9180"

    def closed(self):
        """(client's address, when) of every connection that it closed itself since its last start."""
        lines = (self.home / "out.log").read_text(errors="replace").splitlines()[self.begun:]
        ends = [json.loads(line) for line in lines if '"connection closed"' in line and '"by":"gateway"' in line]
        return [(end["peer"].rsplit(":", 1)[0], datetime.fromisoformat(end["timestamp"]).timestamp()) for end in ends]

    def spawn(self):
        log = self.home / "out.log"
        self.begun = len(log.read_text(errors="replace").splitlines()) if log.exists() else 0
        super().spawn()


class Plain:
    """HAProxy in a gateway's place: each port leads to a node, and nothing else is done. Told to stop it closes what is left after a while."""

    check, send = "", "check"

    def __init__(self, ring, number):
        self.number, self.ring = number, ring
        self.namespace = net.gateway_namespace(number)
        self.home = cache.RUN / f"plain{number}"
        inside = net.gateway_inside(number)
        self.text = GLOBAL + f"  hard-stop-after {SPREAD}s\n" + DEFAULTS + "".join(
            f"listen p{port}\n  bind {inside}:{port}\n  server s {node.address}:9042\n" for port, node in zip(PORTS, ring.nodes))

    def start(self):
        self.process = HAProxy(self.namespace, self.home, self.text, f"sport = :{FIRST_PORT}").process
        return self

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)
            self.process.wait(timeout=SPREAD + 30)


class Balancer(HAProxy):
    """In the first one's namespace, at the address that clients dial; it knows of each server whether it is to be used."""

    def __init__(self, servers, ports):
        self.home = cache.RUN / "balancer"
        self.socket = self.home / "stats"
        listen = "".join(
            f"listen p{port}\n  bind {net.GATEWAY}:{port}\n  balance roundrobin\n  {servers[0].check}\n  default-server inter 500ms fall 2 rise 1\n"
            + "".join(f"  server s{s.number} {net.gateway_inside(s.number)}:{port} {s.send}\n" for s in servers) for port in ports)
        super().__init__(servers[0].namespace, self.home, GLOBAL + f"  stats socket {self.socket}\n" + DEFAULTS + listen)
        for server in servers:
            self.until_up(server)

    def until_up(self, server):
        """Every port's server of this number is used."""
        def up():
            with socket.socket(socket.AF_UNIX) as ask:
                ask.connect(str(self.socket))
                ask.sendall(b"show stat\n")
                with ask.makefile() as said:
                    states = [line.split(",")[17] for line in said if f",s{server.number}," in line]
            return states and all(state.startswith("UP") for state in states)
        until(f"the load balancer uses server {server.number}", up, 30)


def roll(balancer, servers):
    """One after the other: told to end, gone, there again, in use."""
    for server in servers:
        server.stop()
        server.start()
        balancer.until_up(server)


def apart(replica):
    """Of each client with enough connections there, how long lies between the first that was closed and the last, in seconds."""
    times = {}
    for peer, when in replica.closed_before:
        times.setdefault(peer, []).append(when)
    spans = {peer: max(ends) - min(ends) for peer, ends in times.items() if len(ends) >= ENOUGH}
    if not spans:
        raise a.Failed(f"no client had {ENOUGH} connections at gateway {replica.number}: {({peer: len(ends) for peer, ends in times.items()})}")
    short = {peer: round(span, 1) for peer, span in spans.items() if span < SPREAD / 2}
    if short:
        raise a.Failed(f"gateway {replica.number}, of {SPREAD} s: {short}")
    return "; ".join(f"{peer}: {len(times[peer])} over {span:.1f} s" for peer, span in spans.items())


class Rolled(Replica):
    """Remembers what it closed before it came again."""

    closed_before = ()

    def stop(self, *how):
        super().stop(*how)
        self.closed_before = self.closed_before or self.closed()


def under_load(names, servers, ports, contacts, only=False):
    """Every driver reads while the servers are rolled; (driver, what it said at the end) of each."""
    balancer = Balancer(servers, ports)
    try:
        programs = []
        for number, name in enumerate(names, 1):
            client = net.Client(name, number)
            programs.append(Program(drivers.DRIVERS[name], client, contacts[:drivers.DRIVERS[name].contacts], pool=POOL, only=only))
        for program in programs:
            program.ask("start")
        roll(balancer, servers)
        said = [(program.driver.name, program.ask("stop")) for program in programs]
        for program in programs:
            program.quit()
        return said
    finally:
        balancer.stop()


def run(report, names=NAMES):
    drivers.prepare(names)
    report.details = True
    ring = ring_with_schema()
    contacts = [f"{net.GATEWAY}:{FIRST_PORT + number}" for number in range(len(ring.nodes))]
    add = adder(report, "rolled")
    gateways = [Rolled(ring, number=number).start() for number in (1, 2)]
    for number, (name, said) in enumerate(under_load(names, gateways, PORTS, contacts), 1):
        closed = sum(peer == f"{net.CLIENTS}.{10 + number}" for gateway in gateways for peer, _ in gateway.closed_before)
        holds = said["ok"] and said["errors"] <= (closed if name in ONE_HOST else 0)
        report.add("rolled", name, "two gateways", "reads", "ok" if holds else "failed",
                   f"{said['ok']} reads, {closed} connections closed, {said['errors']} failed {said['first'] or ''}")
    for gateway in gateways:
        add(f"gateway {gateway.number}", "apart", lambda: apart(gateway))
        gateway.stop()
    plain = [Plain(ring, number).start() for number in (1, 2)]
    # What fails here is told, and nothing is asked of it.
    for name, said in under_load([name for name in names if name in BEHIND_PLAIN], plain, PORTS[:len(ring.nodes)], contacts, only=True):
        report.add("rolled", name, "two HAProxies", "reads", "-", f"{said['ok']} reads, {said['errors']} failed {said['first'] or ''}")
    for server in plain:
        server.stop()
    ring.kill()
