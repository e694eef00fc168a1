"""Requests made by mutation of valid ones, every choice from one seeded source of chance.

Most stay near what drivers send: what is far from that is refused by the first parser and finds nothing.
"""
import struct

from . import claims, cql
from .speaker import BETA, COMPRESSION, PAYLOAD, TRACING, WARNING

SKIP = 0x02
# Of the three tables, in the ways in which clients ask, and in those in which somebody may try to.
SYSTEM = (
    "SELECT * FROM system.peers_v2", "SELECT * FROM system.peers", "SELECT * FROM system.local",
    "SELECT * FROM system.local WHERE key = 'local'", "SELECT rpc_address FROM system.local", "SELECT native_address, native_port FROM system.peers_v2",
    "SELECT native_address FROM system.peers_v2", "SELECT rpc_address, preferred_ip FROM system.peers", "SELECT peer, rpc_address FROM system.peers",
    "SELECT rpc_address AS a FROM system.peers", "SELECT native_address AS host_id, native_port AS rack FROM system.peers_v2",
    "SELECT JSON * FROM system.peers_v2", "SELECT JSON rpc_address FROM system.local", "SELECT toJson(native_address) FROM system.peers_v2",
    "SELECT CAST(native_address AS text) FROM system.peers_v2", "SELECT CAST(rpc_address AS text) AS rack FROM system.local",
    "SELECT blobAsText(inetAsBlob(rpc_address)) FROM system.local", "SELECT inetAsBlob(rpc_address) FROM system.local",
    "SELECT (rpc_address, host_id) FROM system.peers", "SELECT [native_address] FROM system.peers_v2", "SELECT DISTINCT peer FROM system.peers",
    "SELECT max(rpc_address) FROM system.peers", "SELECT min(native_address), count(*) FROM system.peers_v2",
    "select Native_Address from System.Peers_V2", 'SELECT "rpc_address" FROM "system"."peers"', "SELECT * FROM peers_v2", "SELECT * FROM local",
)
ORDINARY = (
    "SELECT v FROM k3.t WHERE k = 1", "SELECT k, v FROM k1.t LIMIT 3", "SELECT * FROM k3.t WHERE k = 7", "USE system", "USE k3",
    "INSERT INTO k3.t (k, v) VALUES (7, 'value of 7')", "SELECT keyspace_name FROM system_schema.keyspaces",
)
EVENTS = ("TOPOLOGY_CHANGE", "STATUS_CHANGE", "SCHEMA_CHANGE", "topology_change", "Status_Change")


def parameters(version, flags=0, page=None, extra=0):
    """<consistency><flags>[<page size>] of QUERY and EXECUTE."""
    flags |= extra | (0x04 if page else 0)
    return struct.pack(">H", 1) + struct.pack(">I" if version >= 5 else ">B", flags) + (struct.pack(">i", page) if page else b"")


def query(version, text, flags=0, page=None, extra=0):
    return cql.long_string(text) + parameters(version, flags, page, extra)


def prepare(version, text):
    return cql.long_string(text) + (struct.pack(">I", 0) if version >= 5 else b"")


def execute(version, prepared, flags=SKIP, page=None, extra=0):
    identity, result = prepared
    body = struct.pack(">H", len(identity)) + identity
    if version >= 5:
        body += struct.pack(">H", len(result)) + result
    return body + parameters(version, flags, page, extra)


def batch(version, text, prepared=None):
    """One plain statement, and a prepared one where there is one: nodes refuse a SELECT in it, which is an answer, too."""
    kinds = b"\0" + cql.long_string(text) + b"\0\0"
    count = 1
    if prepared:
        kinds, count = kinds + b"\1" + struct.pack(">H", len(prepared[0])) + prepared[0] + b"\0\0", 2
    return struct.pack(">BH", 0, count) + kinds + struct.pack(">H", 1) + (struct.pack(">I", 0) if version >= 5 else b"\0")


def prepared_of(version, body):
    """The id, and in v5 that of the result's metadata, of a RESULT body of kind Prepared; None of another."""
    reader = cql.Reader(body)
    if reader.int() != 4:
        return None
    identity = reader.take(reader.short())
    return identity, reader.take(reader.short()) if version >= 5 else b""


class Mutator:
    def __init__(self, chance, pool, gentle=False, holds=False):
        """`pool` is all connections' own: (version is at least 5) → [(what was prepared)]. `gentle`: no body is said to be compressed that is not,
        as 4.1 takes its word for it: a length is allocated, and memory outside the process's own is read. `holds`: no value is said to be longer than
        what there is of it, as 4.1 allocates that."""
        self.chance, self.pool, self.gentle, self.holds = chance, pool, gentle, holds

    def text(self):
        return self.chance.choice(SYSTEM if self.chance.random() < 0.65 else ORDINARY)

    def valid(self, version):
        """(opcode, body) as a driver would send it, or nearly."""
        chance, known = self.chance, self.pool.get(version >= 5)
        kind = chance.choices(("query", "execute", "prepare", "batch", "register", "options"), (4, 8 if known else 0, 3, 1, 0.5, 0.5))[0]
        flags = SKIP if chance.random() < 0.6 else 0
        page = chance.choice((None, None, None, 1, 5000))
        extra = 1 << chance.randrange(8 if version < 5 else 32) if chance.random() < 0.05 else 0
        if kind == "query":
            return cql.QUERY, query(version, self.text(), flags, page, extra)
        if kind == "execute":
            return cql.EXECUTE, execute(version, chance.choice(known), flags, page, extra)
        if kind == "prepare":
            return cql.PREPARE, prepare(version, self.text())
        if kind == "batch":
            return cql.BATCH, batch(version, self.text(), chance.choice(known) if known and chance.random() < 0.5 else None)
        if kind == "register":
            return cql.REGISTER, cql.string_list(chance.sample(EVENTS, chance.randint(1, 4)))
        return cql.OPTIONS, b""

    def frame(self, speaker):
        """One request on the wire's terms: usually one thing about it is odd, sometimes nothing, seldom two. None of one that is left out."""
        chance, version = self.chance, speaker.version
        opcode, body = self.valid(version)
        stream = chance.choice((1, 1, 1, 2, 3, chance.randrange(32768)))
        flags, claimed = 0, None
        for _ in range(chance.choices((0, 1, 2), (4, 5, 1))[0]):
            odd = chance.choices(("compression", "payload", "payload without", "tracing", "other flag", "version", "stream", "opcode", "byte", "cut", "more"),
                                 (4, 2, 1, 0.3, 1, 1, 1, 0.5, 1, 0.5, 0.5))[0]
            if odd == "compression" and self.gentle and speaker.compression != "none" and not speaker.segmented:
                continue
            if odd == "compression":
                flags |= COMPRESSION
            elif odd == "payload":
                flags, body = flags | PAYLOAD, struct.pack(">H", 1) + cql.string("a") + cql.value(b"b" * chance.randrange(9)) + body
            elif odd == "payload without":
                flags |= PAYLOAD
            elif odd == "tracing":
                flags |= TRACING
            elif odd == "other flag":
                flags |= chance.choice((WARNING, BETA, 0x20, 0x40, 0x80))
            elif odd == "version":
                claimed = chance.choice((3, 4, 5, 6, 0x83, 0x84, 0x85, 2, 0))
            elif odd == "stream":
                stream = -chance.randint(1, 3)
            elif odd == "opcode":
                opcode = chance.choice((0x01, 0x05, 0x07, 0x09, 0x0A, 0x0B, 0x0D, 0x0F, 0x08, 0x42))
            elif odd == "byte" and body:
                at = chance.randrange(len(body))
                body = body[:at] + bytes([chance.randrange(256)]) + body[at + 1:]
            elif odd == "cut":
                body = body[:chance.randrange(len(body) + 1)]
            elif odd == "more":
                body += bytes(chance.randrange(1, 9))
        if self.holds and not claims.fit(version, opcode, flags, body):
            return None
        if flags & COMPRESSION and not speaker.segmented:
            # With the flag, and without what it says: neither is `Speaker.frame`'s way.
            return cql.frame(version if claimed is None else claimed, opcode, body, stream, flags)
        return speaker.frame(opcode, body, stream, flags, claimed)
