"""Which drivers there are, how each program is made, and what each driver can speak.

`view` is what the gateway shows the driver: every node as a port, or the one node behind the dialled port.
"""
from dataclasses import dataclass, field
from functools import lru_cache

from . import cache

SOURCES = cache.HERE / "drivers"
JAVA_JARS = (
    "org.apache.cassandra:java-driver-core:4.19.3", "at.yawk.lz4:lz4-java:1.10.2",
    "org.xerial.snappy:snappy-java:1.1.10.1", "org.slf4j:slf4j-nop:1.7.36",
)
PYTHON = ("cassandra-driver==3.30.1", "cqlsh==6.2.2", "lz4==4.4.5", "python-snappy==0.7.3")


@lru_cache
def java():
    lib = cache.jars("drivers/java", JAVA_JARS)
    source = SOURCES / "java/Probe.java"
    classes = cache.entry("drivers/java-classes", cache.digest(source),
                          lambda place: cache.run("javac", "-cp", f"{lib}/*", "-d", place, source))
    return ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{classes}:{lib}/*", "Probe"]


@lru_cache
def python():
    return [cache.python("drivers/python", PYTHON), SOURCES / "probe.py"]


@lru_cache
def cqlsh():
    return [cache.python("drivers/python", PYTHON).parent / "cqlsh"]


@lru_cache
def node():
    modules = cache.entry("drivers/node", "cassandra-driver@4.10.0", lambda place: cache.run(
        "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", place, "cassandra-driver@4.10.0"))
    return ["env", f"NODE_PATH={modules / 'node_modules'}", "node", SOURCES / "node/probe.js"]


@lru_cache
def go():
    files = [SOURCES / "go" / name for name in ("probe.go", "go.mod", "go.sum")]
    place = cache.entry("drivers/go", cache.digest(*files), lambda place: cache.run(
        "go", "build", "-o", place / "probe", ".", cwd=SOURCES / "go"))
    return [place / "probe"]


@lru_cache
def rust(name):
    files = [*(SOURCES / "rust/src").glob("*.rs"), SOURCES / "rust/Cargo.toml", SOURCES / "rust/Cargo.lock"]
    place = cache.entry("drivers/rust", cache.digest(*files), lambda place: cache.run(
        "cargo", "build", "--locked", cwd=SOURCES / "rust", env={"CARGO_TARGET_DIR": str(place)}), keep=True)
    return [place / "debug" / name]


@dataclass(frozen=True)
class Driver:
    name: str
    command: object
    # (protocol version, compression) that the driver can be told to speak.
    cells: tuple
    view: str = "node ports"
    # The version it speaks without being told; None where it must be told.
    default: int | None = None
    # Which contact points a program gets: one is enough for a driver that finds the others.
    contacts: int = 1
    # Whether the program can say who the driver takes for a key's owner.
    names_owners: bool = True
    # Why the driver learns of a node's end by its connections alone, where what clients dial is not what nodes dial.
    deaf: str = ""
    # What the driver cannot do, whatever the gateway does: assertion → why. A weaker check stands in.
    faults: dict = field(default_factory=dict, hash=False)


ALL_CELLS = tuple((v, c) for v in (3, 4) for c in ("none", "lz4", "snappy")) + ((5, "none"), (5, "lz4"))
V4 = ((4, "none"), (4, "lz4"), (4, "snappy"))

# cdrs-tokio 9.0.2, src/cluster/topology/node.rs: `clone_with_node_info` takes every node for moved at each refresh (it
# compares internode with native address; --direct shows the same), so all of them count as unknown once the control connection was renewed;
# `with_state` gives a node that joins no distance, so it is never dialled.
CDRS_FAULTS = {"CA6": "a session does not outlive its control connection", "CA7-in": "a joined node is known, never dialled"}
# gocql 2.1.2, policies.go: `cowHostList` tells hosts apart by IP alone. Another port of the same address is not added, and
# the removal of the dead one then empties the list for good: sessions stay with one port of an address.
GOCQL_FAULTS = {name: "a session does not move to another port of an address" for name in ("CA5", "CA6")}

# gocql 2.1.2, ring.go: `hostIPToUUID` is by internode address (`peer`, `broadcast_address`), and is asked for the address of an event, which is the
# one that clients dial.
GOCQL_DEAF = "no event finds its node"

DRIVERS = {d.name: d for d in (
    Driver("java", java, ALL_CELLS),
    Driver("python", python, ALL_CELLS),
    Driver("cdrs-tokio", lambda: rust("cdrs"), ALL_CELLS, default=4, faults=CDRS_FAULTS),
    Driver("node", node, ((3, "none"), (4, "none")), view="single node", contacts=3),
    Driver("gocql", go, ((4, "none"), (4, "lz4"), (4, "snappy"), (5, "none"), (5, "lz4")), view="single node", default=5, contacts=3, names_owners=False, deaf=GOCQL_DEAF, faults=GOCQL_FAULTS),
    Driver("scylla", lambda: rust("scylla"), V4, view="single node", default=4, contacts=3),
)}


def prepare(names):
    """Makes every program that `names` need, so that no build runs while a ring is timed."""
    for name in names:
        DRIVERS[name].command()
    cqlsh()
