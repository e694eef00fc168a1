"""What the rig puts into a ring: k1.t with one replica of each row (who answers is who owns), k3.t with three."""
import bisect

from .cassandra import PLANTED
from .secrets import SEARCHED
from .wait import until

KEYS = 300


def agreed(ring):
    """One schema version on every node."""
    return len({str(n.query("SELECT schema_version FROM system.local")[0]["schema_version"]) for n in ring.nodes}) == 1


def create(ring, replication=None):
    """`replication`: keyspace → {data center: replicas}, where they are not spread over the whole ring."""
    first = ring.nodes[0]
    for name, factor in (("k1", 1), ("k3", min(3, len(ring.nodes)))):
        strategy = {"class": "NetworkTopologyStrategy", **replication[name]} if replication else {"class": "SimpleStrategy", "replication_factor": factor}
        first.query(f"CREATE KEYSPACE {name} WITH replication = {strategy}")
        first.query(f"CREATE TABLE {name}.t (k int PRIMARY KEY, v text)")
    if ring.auth:
        first.query(f"CREATE ROLE {PLANTED[0]} WITH PASSWORD = '{PLANTED[1]}' AND LOGIN = true AND SUPERUSER = true")
        SEARCHED.passwords.add(PLANTED[1])
    until("the nodes agree on the schema", lambda: agreed(ring), 60)
    with first.connect() as connection:
        for k in range(KEYS):
            for name in ("k1", "k3"):
                connection.query(f"INSERT INTO {name}.t (k, v) VALUES ({k}, 'value of {k}')")
        ring.key_tokens = {row["k"]: row["system.token(k)"] for row in connection.query("SELECT k, token(k) FROM k3.t")}
    if len(ring.key_tokens) != KEYS:
        raise RuntimeError(f"k3.t has {len(ring.key_tokens)} rows")


def owners(ring, truth):
    """key → host_id of its only owner in k1, by the nodes' own arithmetic: token(k), and the first node at or after it."""
    around = sorted((int(token), host_id) for host_id, node in truth.items() for token in node["tokens"])
    ends = [token for token, _ in around]
    return {k: around[bisect.bisect_left(ends, token) % len(around)][1] for k, token in ring.key_tokens.items()}
