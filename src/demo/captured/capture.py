#!/usr/bin/env python3
"""Takes the simulated node's answers from a real node: `capture.py HOST` beside this file's output.

`tests/real/run cluster` starts a ring and prints its addresses. Asked in v4 without compression; a Rows message is the
same in v3, v4 and v5. `tables/KEYSPACE.TABLE` is the message of `SELECT * FROM KEYSPACE.TABLE`; `texts/describe_cluster`
that of `DESCRIBE CLUSTER`; `supported` that of OPTIONS.
"""
import struct
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "tests/real"))
from rig import cql  # noqa: E402

SETUP = [
    "CREATE KEYSPACE IF NOT EXISTS demo WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 2}",
    "CREATE TABLE IF NOT EXISTS demo.kv (k text PRIMARY KEY, v text) WITH comment = 'the table of cqlgate demo'",
]
TABLES = ["system.local", "system.peers", "system.peers_v2", "demo.kv"] + [
    f"system_schema.{table}" for table in ("aggregates", "column_masks", "columns", "dropped_columns", "functions", "indexes",
                                           "keyspaces", "tables", "triggers", "types", "views")
] + [f"system_virtual_schema.{table}" for table in ("columns", "keyspaces", "tables")]
TEXTS = [
    "DESCRIBE CLUSTER", "DESCRIBE KEYSPACES", "DESCRIBE TABLES", "DESCRIBE SCHEMA", "DESCRIBE KEYSPACE demo", "DESCRIBE demo",
    "DESCRIBE TABLE demo.kv", "DESCRIBE demo.kv",
    # cdrs-tokio, cluster_metadata_manager.rs
    "SELECT keyspace_name, toJson(replication) AS replication FROM system_schema.keyspaces",
]


class Raw(cql.Connection):
    def message(self, opcode, body):
        """The answer's opcode and message, ERROR included."""
        self.socket.sendall(cql.frame(4, opcode, body))
        _, flags, _, opcode, length = struct.unpack(">BBhBi", self.read(9))
        body = self.read(length)
        if flags:
            raise SystemExit(f"flags {flags:#x}: a prefix that is not expected here")
        return opcode, body.replace(cql.value(b"rig"), cql.value(b"cqlgate demo"))  # the cluster's name

    def ask_text(self, text):
        return self.message(cql.QUERY, cql.long_string(text) + struct.pack(">HB", 1, 0))


def main(host):
    with Raw(host) as node:
        for text in SETUP:
            node.ask_text(text)
            time.sleep(2)  # until every node has the new schema
        (HERE / "tables").mkdir(exist_ok=True)
        (HERE / "texts").mkdir(exist_ok=True)
        for table in TABLES:
            opcode, body = node.ask_text(f"SELECT * FROM {table}")
            if opcode != cql.RESULT:
                raise SystemExit(f"{table}: {body!r}")
            (HERE / "tables" / table).write_bytes(body)
        for text in TEXTS:
            opcode, body = node.ask_text(text)
            if opcode != cql.RESULT:
                raise SystemExit(f"{text}: {body!r}")
            (HERE / "texts" / text.lower().replace(" ", "_")).write_bytes(body)
        (HERE / "supported").write_bytes(node.message(cql.OPTIONS, b"")[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
