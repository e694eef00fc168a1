"""Clients among the nodes, who are told the nodes' own addresses, and clients outside, behind HAProxy with PROXY v2, who are told the gateway's: at
one gateway, at the same moment. A third path is that of a private endpoint, which a header's TLV names: the rig writes it by itself.

The rig is on the nodes' bridge, and is a load balancer to the gateway as HAProxy is: what it says first decides who it is.
"""
import json
import signal
import socket
import struct
import subprocess
from dataclasses import replace

from . import assertions as a
from . import cql, drivers, net, schema
from .addresses import ONE_PORT, Addressed, listed, same
from .api_witness import Metrics
from .datacenters import Listener
from .drivers import DRIVERS
from .gateway import FIRST_PORT
from .program import Died, Program
from .wait import Late, until

INSIDE, OUTSIDE, PRIVATE = "inside", "outside", "private"
RIG = f"{net.NODES}.1"
# Who the headers of the rig speak of.
SPOKEN_OF = f"{net.CLIENTS}.60"
ENDPOINT, OTHER_ENDPOINT = "vpce-08d2bf15fac5001c9", "vpce-08d2bf15fac5001c8"
# What clients of the private endpoint are told; nobody has to be there.
PRIVATE_ADDRESS = "192.0.2.10"
PEERS = "SELECT * FROM system.peers_v2"
LOCAL = "SELECT * FROM system.local"
TOLD = "SELECT host_id, native_address, native_port FROM system.peers_v2"
# Says what it is given, in hexadecimal, and how it is answered: the opcode, or that it is closed.
SAY = """
import socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
    s.sendall(bytes.fromhex(sys.argv[3]))
    said = s.recv(9)
    print(f"opcode {said[4]}" if len(said) > 4 else "closed")
except ConnectionResetError:
    print("closed")
"""


def header(endpoint=None, port=FIRST_PORT):
    """PROXY v2 of a client outside; `endpoint` as AWS says it, in PP2_TYPE_AWS with PP2_SUBTYPE_AWS_VPCE_ID."""
    said = struct.pack("!B", 1) + endpoint.encode() if endpoint else b""
    body = socket.inet_aton(SPOKEN_OF) + socket.inet_aton(net.GATEWAY) + struct.pack("!HH", 40000, port)
    body += struct.pack("!BH", 0xEA, len(said)) + said if endpoint else b""
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x11, len(body)) + body


class Pathed(Addressed):
    """With three paths; `insiders` are the clients among the nodes."""

    def __init__(self, ring, insiders):
        froms = ", ".join(f"{address}/32" for address in (RIG, *(client.address for client in insiders)))
        told = f"""paths:
  - {{name: {INSIDE}, from: [{froms}], advertise: pods}}
  - {{name: {PRIVATE}, proxy: {{aws_vpce: {ENDPOINT}}}, advertise: {PRIVATE_ADDRESS}}}
  - {{name: {OUTSIDE}, advertise: {listed(same)}}}"""
        super().__init__(ring, told, proxy=f"proxy_protocol: {{mode: optional, from: [{net.gateway_inside()}, {RIG}]}}\n")

    def told_on(self, path):
        """host_id → ip:port for clients of a path, by what the configuration says; the gateway is believed in which port is whose."""
        rows = {str(node.open()["host_id"]): (node, row["port"]) for node, row in self.rows()}
        mean = {INSIDE: lambda node, _: f"{node.address}:9042", PRIVATE: lambda _, port: f"{PRIVATE_ADDRESS}:{port}",
                OUTSIDE: lambda _, port: f"{net.ADDRESSES[port - FIRST_PORT]}:{FIRST_PORT}"}[path]
        return {host_id: mean(*found) for host_id, found in rows.items()}

    def path(self, name):
        return json.loads(self.admin(f"/topology?path={name}"))


class Expected:
    """What drivers of a path must know. One that was led to the gateway keeps its contact point for the node behind it, while that is where it asks."""

    def __init__(self, gateway, path, contact=None):
        self.truth, self.advertised = gateway.ring.truth(), gateway.told_on(path)
        self.owners = schema.owners(gateway.ring, self.truth)
        if contact:
            self.advertised[contact[0]] = contact[1]


def raw(gateway, node, preface=b""):
    """A connection of the rig to a node's port, that listens."""
    return Listener(net.gateway_inside(), gateway.port_of(node), preface=preface)


def endpoint(row):
    return f"{row['native_address']}:{row['native_port']}"


def rows(gateway, node, listener, path):
    """What is told of every node on one port, and that no column is another one's."""
    own = {str(row["host_id"]): row for row in node.query(PEERS) + node.query(LOCAL)}
    expected = gateway.told_on(path)
    peers = {str(row["host_id"]): row for row in listener.query(PEERS)}
    local = listener.query(LOCAL)[0]
    host_id = str(local["host_id"])
    told = {name: endpoint(row) for name, row in peers.items()} | {host_id: f"{local['rpc_address']}:{local['rpc_port']}"}
    if told != expected or host_id != str(node.open()["host_id"]):
        raise a.Failed(f"told {told}, expected {expected}")
    shown = {row["host_id"]: row["advertised"] for row in gateway.path(path)["nodes"]}
    if shown != expected:
        raise a.Failed(f"/topology?path={path} has {shown}, expected {expected}")
    # The older table has an address and no port, and must have the same one.
    older = {str(row["host_id"]): row["rpc_address"] for row in listener.query("SELECT host_id, rpc_address FROM system.peers")}
    if older != {name: expected[name].rsplit(":", 1)[0] for name in peers}:
        raise a.Failed(f"peers has {older}, expected {expected}")
    changed = sorted({column for name, row in {**peers, host_id: local}.items() for column, value in row.items() if own[name].get(column) != value})
    allowed = [] if path == INSIDE else ["native_address", "native_port", "rpc_address", "rpc_port"]
    if not set(changed) <= set(allowed):
        raise a.Failed(f"{changed} are not as the node has them")
    return f"{', '.join(sorted(told.values()))}; {'every column as the node has it' if not changed else 'of the columns only ' + ', '.join(changed) + ' are others'}"


def executed(listener, statement, skips_metadata):
    """Rows of a statement that somebody has prepared."""
    body = struct.pack("!H", len(statement)) + statement + struct.pack("!HB", 1, 0x02 if skips_metadata else 0)
    opcode, answer = listener.ask(cql.EXECUTE, body)
    if opcode != cql.RESULT or struct.unpack("!i", answer[4:8])[0] & 0x04:
        raise a.Failed(f"opcode {opcode}, {'no names' if opcode == cql.RESULT else answer[:60]}")
    return {str(row["host_id"]): endpoint(row) for row in cql.rows(answer)}


def prepared(gateway, node, listeners):
    """What one has prepared, the others execute; each is told what its own path is."""
    own, runs = str(node.open()["host_id"]), 0
    for number, (by, preparing) in enumerate(listeners.items()):
        # Another text for each: a node knows a statement by it.
        _, answer = preparing.ask(cql.PREPARE, cql.long_string(f"{TOLD} LIMIT {100 + number}"))
        reader = cql.Reader(answer)
        kind, statement = reader.int(), reader.take(reader.short())
        if kind != 4:
            raise a.Failed(f"PREPARE is answered by kind {kind}")
        for path, listener in listeners.items():
            expected = {host_id: told for host_id, told in gateway.told_on(path).items() if host_id != own}
            for skips in (False, True):
                found, runs = executed(listener, statement, skips), runs + 1
                if found != expected:
                    raise a.Failed(f"prepared {by}, executed {path}: {found}, expected {expected}")
    return f"{runs} executions of {len(listeners)} statements"


def of_endpoint(gateway, node):
    """It is the endpoint's own id that counts, and a header's word only from who may."""
    with raw(gateway, node, header(OTHER_ENDPOINT)) as other:
        told = {endpoint(row) for row in other.query(TOLD)}
    wanted = set(gateway.told_on(OUTSIDE).values())
    if not told < wanted:
        raise a.Failed(f"another endpoint is told {told}, expected of {wanted}")
    return f"{OTHER_ENDPOINT} is told what is told outside: {', '.join(sorted(told))}"


def pretended(gateway, client):
    """A client inside that speaks of a private endpoint by itself: it is closed. The same one without a header is answered."""
    def say(said):
        command = ["ip", "netns", "exec", client.full, "python3", "-c", SAY, net.gateway_inside(), str(FIRST_PORT), said.hex()]
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    asked = cql.frame(4, cql.OPTIONS, b"")
    with_header, without = say(header(ENDPOINT) + asked), say(asked)
    if (with_header, without) != ("closed", f"opcode {cql.SUPPORTED}"):
        raise a.Failed(f"with a header {with_header}, without {without}")
    return f"{with_header}; without a header it is answered"


def heard(gateway, node, listeners):
    """DOWN and UP, once each and of nobody else, by what each path calls the node."""
    found, host_id = {}, str(node.open()["host_id"])
    for path, listener in listeners.items():
        called = gateway.told_on(path)[host_id]
        until(f"{path} is told UP {called}", lambda of=listener, name=called: f"UP {name}" in of.heard(), 30)
        wanted = [f"DOWN {called}", f"UP {called}"]
        if listener.told != wanted:
            raise a.Failed(f"{path} is told {listener.told}, expected {wanted}")
        found[path] = f"{path}: {', '.join(wanted)}"
    return "; ".join(found.values())


class Party:
    """A driver of one path, and what it must know."""

    def __init__(self, gateway, path, name, client, contact, contact_node):
        self.gateway, self.path, self.name, self.client, self.contact = gateway, path, name, client, contact
        self.contact_node = str(contact_node.open()["host_id"])
        client.reset()
        self.program = Program(DRIVERS[name], client, [contact])

    def expected(self, met_by_contact=True):
        return Expected(self.gateway, self.path, (self.contact_node, self.contact) if met_by_contact else None)

    def sent(self):
        """Packets so far, by where they were to go."""
        return {name: self.client.packets(name) for name in (("nodes", "gateway") if self.path == INSIDE else ("gateway", "leaked"))}

    def begin(self):
        self.begun = self.sent()
        self.program.ask("start")

    def went(self):
        """The reads' own packets: one at least to where each was answered. Returns how many there were."""
        said, expected = self.said, self.expected()
        direct = sum(count for host_id, count in said["coordinators"].items() if expected.advertised[host_id] == f"{expected.truth[host_id]['address']}:9042")
        through = said["ok"] - direct
        sent = {name: count - self.begun[name] for name, count in self.sent().items()}
        words = f"{direct} reads went to nodes and {through} to the gateway, packets: {', '.join(f'{count} {name}' for name, count in sent.items())}"
        if sent["gateway"] < through or sent.get("nodes", 0) < direct or sent.get("leaked", 0) or not (direct if self.path == INSIDE else through):
            raise a.Failed(words)
        return words


def one_port(report, ring, gateway, name, client, port):
    """A driver that knows one port, or tells nodes apart by address alone, inside: it must be told what it can dial. At the port that nodes have
    that is every node; at another one, which it would dial at every node, it is one."""
    contact, cell = f"{net.gateway_inside()}:{port}", f"{INSIDE}, {'nodes' if port == FIRST_PORT else 'other'} port"
    whole = port == FIRST_PORT or name not in ONE_PORT
    driver = replace(DRIVERS[name], view="node ports" if whole else "single node")

    def add(assertion, check):
        try:
            report.add("paths", name, cell, assertion, "ok", check())
        except (a.Failed, Died) as failed:
            report.add("paths", name, cell, assertion, "failed", failed)
    try:
        program = Program(driver, client, [contact], token_aware=whole)
        known = {f"{node['address']}:{node['port']}" for node in program.ask("nodes")["nodes"]}
    except Died as failed:
        report.add("paths", name, cell, "CA2", "failed", failed)
        add("CA1", lambda: a.ca1(client))
        return
    own = next(host_id for host_id, told in gateway.told_on(PRIVATE).items() if told.endswith(f":{port}"))
    # Some call the node behind their contact point by it, some by its row.
    expected = Expected(gateway, INSIDE, (own, contact) if contact in known else None)
    add("CA2", lambda: a.ca2(program, expected))
    add("CA3", lambda: a.ca3(program, expected))
    add("CA4", lambda: a.ca4(program, expected))
    program.quit()
    add("CA1", lambda: a.ca1(client))


def run(report, ring, every):
    """`every` are the drivers; those that read ports stay for all of it."""
    drivers.prepare(every)
    names = [name for name in every if name in ("java", "python")]
    nodes = [node.address for node in ring.nodes]
    insiders = {name: net.Insider(f"in-{name}", number, nodes) for number, name in enumerate(names, 1)}
    outsiders = {name: net.Client(f"out-{name}", number, to=net.ADDRESSES) for number, name in enumerate(names, 40)}
    others = {name: net.Insider(f"in-{name}", number, nodes) for number, name in enumerate(every, 10) if name not in names}
    gateway = Pathed(ring, [*insiders.values(), *others.values()]).start()
    first = ring.nodes[0]

    def judge(who, cell, assertion, check):
        try:
            report.add("paths", who, cell, assertion, "ok", check() or "")
        except (a.Failed, Died, Late, OSError, EOFError, cql.Refused) as failed:
            report.add("paths", who, cell, assertion, "failed", failed)

    listeners = {INSIDE: raw(gateway, first), OUTSIDE: raw(gateway, first, header()), PRIVATE: raw(gateway, first, header(ENDPOINT))}
    for path, listener in listeners.items():
        judge("raw", path, "rows", lambda: rows(gateway, first, listener, path))
    judge("raw", "all paths", "prepared", lambda: prepared(gateway, first, listeners))
    judge("raw", PRIVATE, "endpoint", lambda: of_endpoint(gateway, first))
    judge("raw", INSIDE, "pretended", lambda: pretended(gateway, next(iter((insiders | others).values()))))
    for name, client in others.items():
        for port in (FIRST_PORT, FIRST_PORT + 1):
            # It dials its own node's address, as the row has it, at the contact point's port: README.md says where it is to begin.
            if name == "scylla" and port != FIRST_PORT:
                report.add("paths", name, f"{INSIDE}, other port", "CA1", "-", "must begin at the nodes' own port")
                continue
            one_port(report, ring, gateway, name, client, port)
    inner, outer = f"{net.gateway_inside()}:{gateway.port_of(first)}", gateway.told_on(OUTSIDE)[str(first.open()["host_id"])]
    parties = []
    for path, clients, contact in ((INSIDE, insiders, inner), (OUTSIDE, outsiders, outer)):
        for name, client in clients.items():
            try:
                parties.append(Party(gateway, path, name, client, contact, first))
            except Died as failed:
                report.add("paths", name, path, "CA2", "failed", failed)

    def each(assertion, check):
        for party in parties:
            judge(party.name, party.path, assertion, lambda: check(party))
    each("CA2", lambda party: a.ca2(party.program, party.expected()))
    each("CA3", lambda party: a.ca3(party.program, party.expected()))
    each("CA4", lambda party: a.ca4(party.program, party.expected()))
    judge("gateway", "all paths", "counted", lambda: counted(gateway, parties))
    death(ring.nodes[1], gateway, parties, listeners, judge, each)
    control(first, gateway, each)
    each("CA1", lambda party: a.ca1(party.client))
    for party in parties:
        party.program.quit()
    for listener in listeners.values():
        listener.socket.close()
    gateway.stop()


def counted(gateway, parties):
    """Open connections by path, where drivers are: inside the contact point's node alone is asked through the gateway."""
    found = {path: int(Metrics(gateway).sum("path_connections_open", path=path)) for path in (INSIDE, PRIVATE, OUTSIDE)}
    for path in found:
        # The rig's own connection is one, a driver's control connection another.
        if found[path] < 1 + sum(party.path == path for party in parties):
            raise a.Failed(str(found))
    if found[PRIVATE] != 1:
        raise a.Failed(str(found))
    return ", ".join(f"{path} {count}" for path, count in found.items())


def death(node, gateway, parties, listeners, judge, each):
    """A node stops in good order and returns while clients of both paths read; then what they read, and where their packets went."""
    host_id = str(node.open()["host_id"])
    each("before", lambda party: a.eventually("before", lambda: a.traffic_reaches(party.program, host_id), 10)[0] and "reads reach node 2")
    for party in parties:
        party.begin()
    node.stop(signal.SIGTERM)
    each("down", lambda party: f"after {a.eventually('down', lambda: a.reported_down(party.program, host_id), 60)[1]:.1f} s")
    node.start()
    node.wait_open()
    until("the gateway shows node 2 again", gateway.complete, 60)
    each("up", lambda party: f"after {a.eventually('up', lambda: reported_up(party.program, host_id), 60)[1]:.1f} s")

    def ended(party):
        party.said = party.program.ask("stop")
        if party.said["errors"] or not party.said["ok"]:
            raise a.Failed(f"{party.said['errors']} of {party.said['ok'] + party.said['errors']} reads failed: {str(party.said['first'])[:200]}")
        return f"{party.said['ok']}, 0 failed"
    each("reads", ended)
    each("packets", lambda party: party.went())
    judge("raw", "all paths", "events", lambda: heard(gateway, node, listeners))

    def right(party):
        a.eventually("right", lambda: a.all_right(party.program, party.expected()), 60)
        a.eventually("traffic", lambda: a.traffic_reaches(party.program, host_id), 60)
        return "CA2 to CA4 hold, reads reach node 2"
    each("after", right)


def reported_up(program, host_id):
    if not any(node["up"] for node in program.ask("nodes")["nodes"] if node["host_id"] == host_id):
        raise a.Failed(f"{a.short(host_id)} is not up for the driver")


def control(node, gateway, each):
    """Node 1, behind the contact points, is killed and comes back: from then on those inside know it by its own address, too."""
    node.stop(signal.SIGKILL)
    each("CA6", lambda party: a.eventually("reads", lambda: a.some_reads(party.program), 60)[0] and "reads go on")
    node.start()
    node.wait_open()
    until("the gateway shows node 1 again", gateway.complete, 60)
    each("CA6-up", lambda party: f"right after {a.eventually('up', lambda: a.all_right(party.program, party.expected(party.path != INSIDE)), 60)[1]:.1f} s")
