"""Two data centers of two nodes each, of which the gateway serves one: what is told of the other, and of a ghost.

Once with the rows of the other data center hidden, once with them kept. Clients keep to their own data center either way; they, and a
connection that reads and listens by itself, are told of the other one nothing, or just what its nodes say of themselves.
"""
import select
import signal
import struct
import uuid

from . import assertions as a
from . import cql, drivers, net, schema, suites
from .api_witness import Metrics
from .cassandra import Ring
from .gateway import Gateway
from .program import Died
from .wait import until

SERVED, REMOTE = "dc1", "dc2"
# A read of k3 is answered in the data center that is served, whatever happens to the other.
REPLICATION = {"k1": {SERVED: 1}, "k3": {SERVED: 2}}
GHOST = {"host_id": uuid.UUID("dead0000-0000-4000-8000-000000000001"), "address": f"{net.NODES}.77"}
PEERS = "SELECT * FROM system.peers_v2"
# The same columns, but two of them are called what they are not.
ALIASED = "SELECT rack AS peer, data_center, host_id, native_address, native_port FROM system.peers_v2"


class Part:
    """The nodes of one data center, as a ring for whoever wants one."""

    def __init__(self, ring, dc):
        self.ring, self.dc = ring, dc
        self.nodes = [node for node in ring.nodes if node.dc == dc]
        self.key_tokens = ring.key_tokens

    def truth(self):
        return {host_id: node for host_id, node in self.ring.truth().items() if node["dc"] == self.dc}


class OneOfTwo(Gateway):
    """The gateway in front of one data center; `fate` is what becomes of the other's rows. Ghosts are always hidden."""

    def __init__(self, ring, fate):
        self.fate = fate
        super().__init__(ring)

    def yaml(self, credentials):
        return super().yaml(credentials) + f"unserved: {{remote: {self.fate}, ghosts: hide}}\n"


class Expected:
    """What drivers must know: the nodes that are served, and, where they are kept, the others at their own addresses."""

    def __init__(self, part, gateway):
        self.truth, self.advertised = part.truth(), gateway.advertised()
        self.owners = schema.owners(part, self.truth)
        if gateway.fate == "keep":
            rest = Part(part.ring, REMOTE).truth()
            self.truth = self.truth | rest
            self.advertised = self.advertised | {host_id: f"{node['address']}:9042" for host_id, node in rest.items()}


class Listener(cql.Connection):
    """A connection that reads and is told of nodes."""

    def __init__(self, address, port, **more):
        self.told = []
        super().__init__(address, port, **more)
        self.ask(cql.REGISTER, cql.string_list(["STATUS_CHANGE", "TOPOLOGY_CHANGE"]))

    def frame(self):
        _, _, stream, opcode, length = struct.unpack(">BBhBi", self.read(9))
        body = self.read(length)
        if opcode == cql.EVENT:
            reader = cql.Reader(body)
            reader.string()
            change = reader.string()
            address = cql.decode((0x10, None), reader.take(reader.take(1)[0]))
            self.told.append(f"{change} {address}:{reader.int()}")
            return None
        if opcode == cql.ERROR:
            reader = cql.Reader(body)
            raise cql.Refused(reader.int(), reader.string())
        return opcode, body

    def ask(self, opcode, body):
        self.socket.sendall(cql.frame(4, opcode, body))
        while True:
            answer = self.frame()
            if answer:
                return answer

    def heard(self):
        """Everything that it was told so far."""
        while select.select([self.socket], [], [], 0)[0]:
            self.frame()
        return self.told


def add_ghost(node):
    """A row of a node that there is not, as one that was lost by force leaves it."""
    address = GHOST["address"]
    row = node.query(PEERS)[0]
    version = row["schema_version"]
    for table, columns, values in (
            ("peers", "peer, rpc_address", f"'{address}', '{address}'"),
            ("peers_v2", "peer, peer_port, native_address, native_port", f"'{address}', 7000, '{address}', 9042")):
        node.query(f"INSERT INTO system.{table} ({columns}, data_center, rack, host_id, release_version, schema_version, tokens) VALUES "
                   f"({values}, '{SERVED}', 'r9', {GHOST['host_id']}, '{row['release_version']}', {version}, {{'42'}})")


def rows(listener, expected_kept, gateway, served):
    """Rows on one port: the other node that is served, the nodes that are kept as node 1 itself has them, and nobody else."""
    own = {str(row["host_id"]): row for row in served.nodes[0].query(PEERS)}
    told = {str(row["host_id"]): row for row in listener.query(PEERS)}
    advertised = gateway.advertised()
    wanted = (advertised.keys() - {str(served.nodes[0].open()["host_id"])}) | expected_kept
    if told.keys() != wanted or str(GHOST["host_id"]) not in own:
        raise a.Failed(f"rows of {sorted(told)}, expected {sorted(wanted)}; the node has {sorted(own)}")
    for host_id in told.keys() & expected_kept:
        if told[host_id] != own[host_id]:
            raise a.Failed(f"{told[host_id]} is not as the node has it: {own[host_id]}")
    for host_id in told.keys() - expected_kept:
        row = told[host_id]
        if f"{row['native_address']}:{row['native_port']}" != advertised[host_id]:
            raise a.Failed(f"{host_id} is told at {row['native_address']}:{row['native_port']}")
    aliased = {str(row["host_id"]) for row in listener.query(ALIASED)}
    if aliased & expected_kept:
        raise a.Failed(f"columns have other names, and rows of {sorted(aliased & expected_kept)} pass")
    return f"{len(told)} rows, {len(told.keys() & expected_kept)} of them as the node has them; {len(aliased)} where columns have other names"


def counted(gateway, part):
    """Rows that were hidden and kept, by reason, and what `/topology` has of them."""
    metrics, topology = Metrics(gateway), gateway.topology()
    # Rows of `peers` name no port, which is 0 here. Answers that say nothing of data centers, as Python's driver asks for, keep no row.
    listed = {name: {(row["address"].split(":")[0], row["reason"]) for row in topology[name]} for name in ("hidden", "kept")}
    remote = {(node.address, "remote") for node in part.nodes}
    wanted = {"hidden": {(GHOST["address"], "ghost")}, "kept": set()}
    if gateway.fate == "keep":
        listed["hidden"] -= {(node.address, "no_port") for node in part.nodes}
    wanted["kept" if gateway.fate == "keep" else "hidden"] |= remote
    if listed != wanted:
        raise a.Failed(f"/topology has {listed}, expected {wanted}")
    counts = {f"{fate} {reason}": int(metrics.sum(f"rows_{fate}_total", reason=reason)) for fate, reason in
              (("hidden", "ghost"), ("hidden", "remote"), ("kept", "remote"))}
    absent = "hidden remote" if gateway.fate == "keep" else "kept remote"
    if any((count == 0) != (name == absent) for name, count in counts.items()):
        raise a.Failed(f"counted {counts}")
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def of_remote(program):
    """What a driver was told of nodes that are not served here, in order, without repetitions."""
    told = [f"{event['event']} {event['address']}" for event in program.events if event["address"].startswith(f"{net.NODES}.")]
    return [event for place, event in enumerate(told) if told.index(event) == place]


def away_and_back(node, listeners, gateway, control):
    """A node of the other data center goes and comes back. Returns when a client of a node itself, and the gateway, have heard of both."""
    beside, before = listeners[0], Metrics(gateway)

    def arrived(change):
        now = Metrics(gateway)
        return now.sum("events_total", event=change) - before.sum("events_total", event=change) >= control

    for change, act in (("DOWN", lambda: node.stop(signal.SIGTERM)), ("UP", lambda: (node.start(), node.wait_open()))):
        act()
        until(f"node 1 says {change}", lambda: f"{change} {node.address}:9042" in beside.heard(), 60)
        until(f"{change} reaches the gateway on every control connection", lambda: arrived(change), 60)


def events(listener, node, fate):
    told = [event for event in listener.heard() if event.endswith(f" {node.address}:9042")]
    wanted = [f"DOWN {node.address}:9042", f"UP {node.address}:9042"] if fate == "keep" else []
    others = [event for event in listener.told if event not in told]
    if told != wanted or others:
        raise a.Failed(f"told {listener.told}, expected {wanted}")
    return ", ".join(told) or "nothing of it"


def told(program, node, fate):
    """A driver takes the nodes of another data center for ignored: Java's says that they go and come, Python's only that they are there."""
    found = of_remote(program)
    if fate == "hide" and found:
        raise a.Failed(f"told {found}")
    if fate == "keep" and program.driver.name == "java":
        wanted = [f"down {node.address}:9042", f"up {node.address}:9042"]
        a.eventually("down and up", lambda: until_told(program, wanted), 30)
    return ", ".join(of_remote(program)) or "nothing of it"


def until_told(program, wanted):
    found = of_remote(program)
    if [event for event in found if event in wanted] != wanted:
        raise a.Failed(f"told {found}, expected {wanted}")


def step(report, served, remote, fate, names):
    """Everything with one fate of the rows of the other data center."""
    gateway = OneOfTwo(served, fate).start()
    suite = suites.Suite(report, served, gateway)
    programs = suite.programs("datacenters", names)

    def judge(who, assertion, check):
        try:
            report.add("datacenters", who, fate, assertion, "ok", check())
        except (a.Failed, Died) as failed:
            report.add("datacenters", who, fate, assertion, "failed", failed)

    kept = set(remote.truth()) if fate == "keep" else set()
    expected = Expected(served, gateway)
    listener = Listener(net.gateway_inside(), gateway.port_of(served.nodes[0]))
    beside = Listener(served.nodes[0].address, 9042)
    judge("gateway", "rows", lambda: rows(listener, kept, gateway, served))
    for program in programs:
        judge(program.driver.name, "CA2", lambda: a.ca2(program, expected))
        judge(program.driver.name, "CA4", lambda: a.ca4(program, expected))
        program.ask("start")
    away_and_back(remote.nodes[-1], [beside, listener], gateway, 1 + len(programs))
    # What the gateway lets pass of them comes before this answer.
    listener.query("SELECT key FROM system.local")
    judge("gateway", "events", lambda: events(listener, remote.nodes[-1], fate))
    for program in programs:
        name = program.driver.name
        judge(name, "events", lambda: told(program, remote.nodes[-1], fate))
        judge(name, "reads", lambda: f"{a.reads(program)['ok']}, 0 failed")
        judge(name, "CA2 after", lambda: a.ca2(program, expected))
        judge(name, "CA9", lambda: a.ca9(program))
        program.quit()
        judge(name, "CA1", lambda: a.ca1(program.client))
    judge("gateway", "counted", lambda: counted(gateway, remote))
    for connection in (listener, beside):
        connection.socket.close()
    gateway.stop()


def run(report, names=("java", "python")):
    drivers.prepare(names)
    report.details = True
    ring = Ring(dcs=(SERVED, SERVED, REMOTE, REMOTE)).start()
    schema.create(ring, REPLICATION)
    add_ghost(ring.nodes[0])
    add_ghost(ring.nodes[1])
    served, remote = Part(ring, SERVED), Part(ring, REMOTE)
    for fate in ("hide", "keep"):
        step(report, served, remote, fate, names)
    ring.kill()
