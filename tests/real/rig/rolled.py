"""Two gateways behind one load balancer, HAProxy with PROXY v2, rolled one after the other under drivers that read all the time: no read may
fail that can be tried elsewhere, and where nothing is tried again none but those that a capture shows to have left before the end was there;
no client loses its connections all at once. Then the same with a plain HAProxy in the place of each gateway, to compare.
"""
import json
import time
from datetime import datetime

from . import assertions as a
from . import cache, capture, cql, drivers, net
from .capture import Capture
from .certified import adder
from .gateway import FIRST_PORT, Gateway
from .haproxy import DEFAULTS, HAProxy, ask
from .program import Program
from .suites import ring_with_schema
from .wait import until

PORTS = range(FIRST_PORT, FIRST_PORT + 10)
NAMES = ("java", "python", "node", "scylla")
# Whose retry goes to the next host and to no other connection of the same one, where it knows but one host: a read that is on its way
# when its connection is closed fails, with its own policy too. At most one for each that was closed, as all read one after the other.
ONE_HOST = ("node", "scylla")
# Milliseconds in which a driver reads on a busy machine that a connection has ended.
UNREAD = 100
# Seconds from a gateway's interface to its socket, and back.
ON_ITS_WAY = 0.00005
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
    """HAProxy in a gateway's place: each port leads to a node. It leaves as a gateway does, as far as it can: not ready and still accepting for
    as long, then its connections are closed one by one over as long, of each client as far apart as they can be. What is asked on them it
    does not know."""

    check, send = Replica.check, Replica.send

    def __init__(self, ring, number):
        self.number, self.ring = number, ring
        self.namespace = net.gateway_namespace(number)
        self.home = cache.RUN / f"plain{number}"
        self.socket = self.home / "stats"
        inside = net.gateway_inside(number)
        self.text = (GLOBAL + f"  stats socket {self.socket} level admin\n" + DEFAULTS + f"frontend ready\n  mode http\n  bind {inside}:9180\n  monitor-uri /readyz\n"
                     + "".join(f"listen p{port}\n  bind {inside}:{port} accept-proxy\n  server s {node.address}:9042\n" for port, node in zip(PORTS, ring.nodes)))

    def start(self):
        self.process = HAProxy(self.namespace, self.home, self.text, f"sport = :{FIRST_PORT}").process
        return self

    def turns(self):
        """(when, its name) of every client's connection, from the begin of the closings."""
        clients = {}
        for line in ask(self.socket, "show sess").splitlines():
            if " fe=p" in line:
                clients.setdefault(line.split("src=")[1].split(":")[0], []).append(line.split(":")[0])
        return sorted((SPREAD * index / len(names), name) for names in clients.values() for index, name in enumerate(names))

    def stop(self):
        if self.process.poll() is not None:
            return
        ask(self.socket, "disable frontend ready")
        time.sleep(DELAY)
        for port, _ in zip(PORTS, self.ring.nodes):
            ask(self.socket, f"disable frontend p{port}")
        begun = time.monotonic()
        for when, name in self.turns():
            time.sleep(max(0, begun + when - time.monotonic()))
            ask(self.socket, f"shutdown session {name}")
        self.process.terminate()
        self.process.wait(timeout=30)


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
            states = [line.split(",")[17] for line in ask(self.socket, "show stat").splitlines() if f",s{server.number}," in line]
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


def under_load(names, servers, ports, contacts, **more):
    """Every driver reads while the servers are rolled; (driver, what it said at the end, the capture in its namespace) of each."""
    balancer = Balancer(servers, ports)
    programs, captures = [], []
    try:
        for number, name in enumerate(names, 1):
            client = net.Client(name, number)
            captures.append(Capture(client.full, "eth0", net.GATEWAY, ports, cache.RUN / "capture"))
            programs.append(Program(drivers.DRIVERS[name], client, contacts[:drivers.DRIVERS[name].contacts], pool=POOL, **more))
        for program in programs:
            program.ask("start")
        roll(balancer, servers)
        said = [(program.driver.name, program.ask("stop"), captured) for program, captured in zip(programs, captures)]
        for program in programs:
            program.quit()
        return said
    finally:
        balancer.stop()
        for captured in captures:
            captured.stop()


def on_the_wire(captured):
    """How many reads left the client; how many of its connections were closed; of their reads that nobody answered, those that had left before
    the FIN came, and how late the others were, in ms: the FIN was there, and the driver had not read it."""
    connections = captured.connections()
    closed = [connection for connection in connections if connection.ended_first]
    left = [(when, connection.ended_first) for connection in closed for when, opcode in connection.unanswered() if opcode == cql.EXECUTE]
    sent = sum(connection.asked(cql.EXECUTE) for connection in connections)
    return sent, len(closed), sum(when < fin for when, fin in left), [round((when - fin) * 1000, 1) for when, fin in left if when >= fin]


def overlooked(captured):
    """Requests that had come to the gateway before it said that it is over, and were not answered."""
    closed = [connection for connection in captured.connections() if connection.ended_first]
    early = [(opcode, connection.ended_first - when) for connection in closed for when, opcode in connection.unanswered()]
    left = [f"{opcode:#04x} {seconds * 1e6:.0f} µs before" for opcode, seconds in early if seconds > ON_ITS_WAY]
    if left:
        raise a.Failed(f"of {len(closed)} connections: {left}")
    return f"none, of {len(closed)} connections that it closed"


def gateways(report, add, ring, names, contacts, retries):
    """What fails is what no server can help: a read that was on its way when the gateway, to which nothing was owed, said that it is over."""
    cell = "two gateways" if retries else "two gateways, no retries"
    servers = [Rolled(ring, number=number).start() for number in (1, 2)]
    # The load balancer is where the first one is.
    captures = [Capture(server.namespace, "lo" if server.number == 1 else "eth0", net.gateway_inside(server.number), PORTS, cache.RUN / "capture")
                for server in servers]
    try:
        loads = under_load(names, servers, PORTS, contacts, retries=retries)
    finally:
        for captured in captures:
            captured.stop()
    failed = {}
    for name, said, captured in loads:
        sent, closed, crossed, late = on_the_wire(captured)
        # What a driver gave to a connection of which it knew already that it had ended. It asks by EXECUTE for itself, too, at times: then it is fewer.
        unsent = max(said["ok"] + said["errors"] - sent, said.get("unsent", 0))
        allowed = min(crossed + sum(ms < UNREAD for ms in late) + unsent, closed) if name in ONE_HOST or not retries else 0
        holds = said["ok"] and closed and said["errors"] <= allowed
        failed[name] = said["errors"]
        lost = f"{crossed} crossed the end, {len(late)} sent before the driver had read it{f' ({late} ms)' if late else ''}, {unsent} never sent"
        report.add("rolled", name, cell, "reads", "ok" if holds else "failed",
                   f"{said['ok']} reads, {closed} connections closed; not answered: {lost}; {said['errors']} failed {said['first'] or ''}")
    for server, captured in zip(servers, captures):
        cell = f"gateway {server.number}{'' if retries else ', no retries'}"
        add(cell, "apart", lambda: apart(server))
        add(cell, "overlooked", lambda: overlooked(captured))
        server.stop()
    return failed


def run(report, names=NAMES):
    drivers.prepare(names)
    capture.program()
    report.details = True
    ring = ring_with_schema()
    contacts = [f"{net.GATEWAY}:{FIRST_PORT + number}" for number in range(len(ring.nodes))]
    add = adder(report, "rolled")
    failed = {retries: gateways(report, add, ring, names, contacts, retries) for retries in (True, False)}
    for retries in (True, False):
        behind = [name for name in names if name in BEHIND_PLAIN]
        plain = [Plain(ring, number).start() for number in (1, 2)]
        cell = "two HAProxies" if retries else "two HAProxies, no retries"
        lost = 0
        # What fails here of one driver is told, and nothing is asked of it.
        for name, said, _ in under_load(behind, plain, PORTS[:len(ring.nodes)], contacts, retries=retries, only=True):
            lost += said["errors"]
            report.add("rolled", name, cell, "reads", "-", f"{said['ok']} reads, {said['errors']} failed {said['first'] or ''}")
        for server in plain:
            server.stop()
        ours = sum(failed[retries][name] for name in behind)
        report.add("rolled", "gateway", cell, "fewer", "ok" if ours < lost or ours == lost == 0 else "failed",
                   f"{ours} failed with gateways, {lost} with HAProxies, of {', '.join(behind)}")
    ring.kill()
