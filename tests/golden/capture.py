"""Records the golden conversations from real nodes: `tests/real/run golden`. README.md beside this file says what they are.

The captured bytes are data: what a node said is written down as it came. A run changes host ids, timestamps and
schema versions everywhere, so commit a new recording only for a reason.
"""
import struct
from pathlib import Path

from rig import cql, net, schema
from rig.cassandra import CREDENTIALS, Ring
from rig.wait import until

from .wire import Talk, write

HERE = Path(__file__).resolve().parent
CELLS = [(3, "none"), (3, "lz4"), (3, "snappy"), (4, "none"), (4, "lz4"), (4, "snappy"), (5, "none"), (5, "lz4")]
EVENTS = cql.string_list(["TOPOLOGY_CHANGE", "STATUS_CHANGE", "SCHEMA_CHANGE"])
TRACING, BETA = 0x02, 0x10
SKIP, PAGE, STATE, KEYSPACE = 0x02, 0x04, 0x08, 0x80


def parameters(version, flags=0, page=0, state=None, keyspace=None):
    """<query_parameters> without values: consistency ONE."""
    raw = struct.pack(">H", 1) + (struct.pack(">i", flags) if version >= 5 else struct.pack(">B", flags))
    if flags & PAGE:
        raw += struct.pack(">i", page)
    if flags & STATE:
        raw += cql.value(state)
    if flags & KEYSPACE:
        raw += cql.string(keyspace)
    return raw


def query(talk, text, note="", frame_flags=0, **more):
    return talk.ask(cql.QUERY, cql.long_string(text) + parameters(talk.version, **more), f"{text}{note}", frame_flags)


def prepare(talk, text):
    """(statement id, result metadata id; empty before v5)."""
    body = cql.long_string(text) + (struct.pack(">i", 0) if talk.version >= 5 else b"")
    reader = cql.Reader(talk.ask(cql.PREPARE, body, text)[2])
    reader.int()
    statement = reader.take(reader.short())
    return statement, reader.take(reader.short()) if talk.version >= 5 else b""


def execute(talk, statement, metadata, note, flags=0):
    raw = struct.pack(">H", len(statement)) + statement
    if talk.version >= 5:
        raw += struct.pack(">H", len(metadata)) + metadata
    return talk.ask(cql.EXECUTE, raw + parameters(talk.version, flags=flags), note)


def pages(talk, text):
    body = query(talk, text, " page size 1", flags=PAGE, page=1)[2]
    while True:
        reader = cql.Reader(body)
        reader.int()
        flags, _ = reader.int(), reader.int()
        if not flags & 0x02:
            return
        body = query(talk, text, " page size 1, next page", flags=PAGE | STATE, page=1, state=reader.value())[2]


def system_tables(talk, _ring):
    """A session as drivers have it, and every shape in which the three tables can be answered."""
    talk.send(cql.OPTIONS, b"")
    talk.receive()
    talk.startup()
    talk.ask(cql.REGISTER, EVENTS, "TOPOLOGY_CHANGE, STATUS_CHANGE, SCHEMA_CHANGE")
    query(talk, "SELECT * FROM system.local WHERE key='local'")
    query(talk, "SELECT * FROM system.peers")
    query(talk, "SELECT * FROM system.peers_v2")
    query(talk, "SELECT * FROM system.peers_v2", " with tracing", frame_flags=TRACING)
    query(talk, "SELECT max(native_address), count(*) FROM system.peers_v2", " (answered with a warning)")
    query(talk, "SELECT max(native_address), count(*) FROM system.peers_v2", " with tracing (and a warning)", frame_flags=TRACING)
    query(talk, "SELECT native_address AS a, native_port AS p, host_id FROM system.peers_v2")
    query(talk, "SELECT JSON peer, native_address, native_port FROM system.peers_v2")
    query(talk, "SELECT host_id, rpc_address, data_center, rack, tokens FROM system.peers")
    pages(talk, "SELECT * FROM system.peers_v2")
    query(talk, "SELECT * FROM system.peers_v2", " with skip_metadata", flags=SKIP)
    for text in ("SELECT * FROM system.local WHERE key='local'", "SELECT * FROM system.peers", "SELECT * FROM system.peers_v2"):
        statement, metadata = prepare(talk, text)
        execute(talk, statement, metadata, f"{text}")
        execute(talk, statement, metadata, f"{text} with skip_metadata", flags=SKIP)
        if talk.version >= 5:
            execute(talk, statement, b"\x01" * 16, f"{text} with skip_metadata and a stale result metadata id", flags=SKIP)
    execute(talk, b"\x02" * 16, b"\x02" * 16, "of a statement that nobody prepared")
    query(talk, "SELECT * FROM system.nosuch")
    query(talk, "SELEKT")
    if talk.version >= 5:
        query(talk, "SELECT * FROM peers_v2", " in keyspace system", flags=KEYSPACE, keyspace="system")
    query(talk, "USE system")
    query(talk, "SELECT * FROM local")
    query(talk, "SELECT now() FROM local")


def user_tables(talk, ring):
    """Ordinary traffic: schema changes with their events, a batch, a large answer (several segments in v5)."""
    name = f"k{talk.version}{talk.compression}"
    talk.startup()
    talk.ask(cql.REGISTER, EVENTS, "TOPOLOGY_CHANGE, STATUS_CHANGE, SCHEMA_CHANGE")
    query(talk, f"CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}")
    talk.wait_for("SCHEMA_CHANGE CREATED")
    query(talk, f"CREATE TABLE {name}.t (k int PRIMARY KEY, v text, rpc_address inet)")
    talk.wait_for("SCHEMA_CHANGE CREATED")
    until("the nodes agree on the schema", lambda: schema.agreed(ring), 30)
    insert = f"INSERT INTO {name}.t (k, v, rpc_address) VALUES (1, 'a', '{net.NODES}.12')"
    batch = struct.pack(">BHB", 1, 1, 0) + cql.long_string(insert) + struct.pack(">HH", 0, 1)
    batch += struct.pack(">i", 0) if talk.version >= 5 else b"\0"
    talk.ask(cql.BATCH, batch, insert)
    query(talk, f"SELECT * FROM {name}.t")
    large = f"UPDATE {name}.t SET v = '{'a' * 150000}' WHERE k = 1"
    talk.ask(cql.QUERY, cql.long_string(large) + parameters(talk.version), f"UPDATE {name}.t with 150000 bytes")
    query(talk, f"SELECT * FROM {name}.t")
    query(talk, f"DROP KEYSPACE {name}")
    talk.wait_for("SCHEMA_CHANGE DROPPED")


def nodes(ring):
    truth = sorted(ring.truth().items(), key=lambda item: item[1]["number"])
    lines = [("node", f"{n['number']} {host_id} {n['address']}:9042 {n['dc']} {n['rack']} {','.join(n['tokens'])}") for host_id, n in truth]
    return [("cassandra", ring.version.release), *lines]


def save(ring, name, title, talk, header):
    cell = [("connected to", f"node {next(n.number for n in ring.nodes if n.address == talk.address)}"),
            ("version", f"v{talk.version}"), ("compression", talk.compression)]
    write(HERE / ring.name / f"{name}.txt", title, header + cell, talk)
    talk.close()


def negotiation(ring, header):
    """First frames in versions that nodes refuse, and one that they take only as beta."""
    address = ring.nodes[0].address
    for version, flags, name in ((0x42, 0, "0x42"), (0x41, 0, "0x41"), (7, 0, "v7"), (6, 0, "v6"), (6, BETA, "v6-beta-flag")):
        talk = Talk(address, version)
        talk.send(cql.OPTIONS, b"", flags=flags)
        if flags:
            talk.receive()
        else:
            talk.until_closed()
        save(ring, f"negotiation-{name}", f"OPTIONS in version {name}", talk, header)
    talk = Talk(address, 5, "snappy")
    talk.startup()
    save(ring, "negotiation-v5-snappy", "Snappy does not exist in v5", talk, header)
    talk = Talk(address, 4)
    talk.startup()
    talk.ask(cql.REGISTER, cql.string_list(["STATUS_CHANGE", "CLIENT_ROUTES_CHANGE"]), "STATUS_CHANGE, CLIENT_ROUTES_CHANGE")
    talk.ask(cql.REGISTER, EVENTS, "TOPOLOGY_CHANGE, STATUS_CHANGE, SCHEMA_CHANGE")
    save(ring, "negotiation-v4-register", "an event type that the node does not know", talk, header)


def events(ring, header):
    """Node 3 stops and returns, node 4 joins and leaves, node 3 returns at another address; node 1's clients watch."""
    watch = [Talk(ring.nodes[0].address, version, compression, timeout=90) for version, compression in CELLS]

    def see(*texts):
        for talk in watch:
            talk.wait_for(*texts)
            query(talk, "SELECT peer, peer_port, host_id, native_address, native_port FROM system.peers_v2")

    for talk in watch:
        talk.startup()
        talk.ask(cql.REGISTER, EVENTS, "TOPOLOGY_CHANGE, STATUS_CHANGE, SCHEMA_CHANGE")
    third = ring.nodes[2]
    third.stop()
    see(f"DOWN {third.address}")
    third.start()
    third.wait_open()
    see(f"UP {third.address}")
    fourth = ring.add()
    see(f"NEW_NODE {fourth.address}")
    joined = nodes(ring)[4:]
    ring.remove(fourth)
    see(f"REMOVED_NODE {fourth.address}")
    third.stop()
    see(f"DOWN {third.address}")
    third.move(f"{net.NODES}.23")
    third.start()
    third.wait_open()
    see(f"NEW_NODE {third.address}")
    for talk in watch:
        save(ring, f"events-v{talk.version}-{talk.compression}", "node 3 DOWN, UP; node 4 joins, leaves; node 3 comes back at another address",
             talk, header + joined)


def authentication(header_of):
    """One node that wants a password: the right one and a wrong one, in v4 and v5."""
    ring = Ring("5.0", 1, auth=True).start()
    until("the first role is there", ring.nodes[0].open, 30)
    for version, compression in ((4, "none"), (5, "none"), (5, "lz4")):
        for name, password in (("right", CREDENTIALS[1]), ("wrong", "secret")):
            talk = Talk(ring.nodes[0].address, version, compression)
            talk.startup()
            talk.ask(cql.AUTH_RESPONSE, cql.value(f"\0{CREDENTIALS[0]}\0{password}".encode()), f"PLAIN, {name} password")
            if name == "right":
                query(talk, "SELECT * FROM system.local WHERE key='local'")
            save(ring, f"authentication-v{version}-{compression}-{name}", f"a login with the {name} password", talk, header_of(ring))
    ring.kill()


def record(version="5.0"):
    ring = Ring(version, 3).start()
    header = nodes(ring)
    for number, compression in CELLS:
        for name, session in (("system", system_tables), ("user", user_tables)):
            talk = Talk(ring.nodes[0].address, number, compression)
            session(talk, ring)
            save(ring, f"{name}-v{number}-{compression}", " ".join(session.__doc__.split()), talk, header)
    negotiation(ring, header)
    events(ring, header)
    ring.kill()
    authentication(nodes)
