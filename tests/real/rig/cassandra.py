"""A Cassandra node and a ring of them, each in a namespace of its own, small enough for a shared machine.

Nodes start in parallel, all of them seeds, with explicit tokens. A port that is open is not a ring that is complete: a
node opens 9042 before it has seen the others, so `Ring.start` waits until every node's own peers table is full.
"""
import os
import shutil
import signal
import subprocess

from . import cache, cql, net
from .versions import (AUTH_KEYS, COMMON_KEYS, EXPORTS, LOGBACK, NEW_KEYS, OLD_KEYS, OPENS, TLS_KEYS, VERSIONS)
from .wait import until

TOKENS = ["-9223372036854775808", "-3074457345618258603", "3074457345618258602", "-6148914691236517205"]
TWO_TOKENS = ["-9223372036854775808", "0"]
HEAP = """-Xms64m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=64m -XX:MaxDirectMemorySize=128m
-XX:MaxMetaspaceSize=192m -Xss384k -XX:-UsePerfData -XX:+ExitOnOutOfMemoryError""".split()
FAST = """-Dcassandra.ring_delay_ms=1000 -Dcassandra.skip_wait_for_gossip_to_settle=0
-Dcassandra.consistent.rangemovement=false -Dcassandra.skip_schema_check=true -Dcassandra.superuser_setup_delay_ms=0
-Dcassandra.shutdown_announce_in_ms=500 -Dcassandra.skip_sync=true -Dcassandra.jmx.local.port=7199""".split()
# After FAST, whose flags it takes back: on a busy machine a second is too short to reach a seed and for all to learn of the newcomer's share.
JOINING = ["-Dcassandra.auto_bootstrap=true", "-Dcassandra.skip_schema_check=false", "-Dcassandra.ring_delay_ms=5000"]
CREDENTIALS = ("cassandra", "cassandra")
# A role that may as much, whose password is nothing else: where it is not to be, it can be looked for.
PLANTED = ("app", "planted-Hd7Kq2Vw")


def modules():
    return [f"--add-exports={m}=ALL-UNNAMED" for m in EXPORTS] + [f"--add-opens={m}=ALL-UNNAMED" for m in OPENS]


class Node:
    def __init__(self, ring, number, token, dc="dc1"):
        self.ring, self.number, self.token, self.dc = ring, number, token, dc
        self.address = f"{net.NODES}.{10 + number}"
        self.home = ring.home / f"node{number}"
        self.namespace = net.namespace(f"n{number}")
        net.attach(self.namespace, net.NODE_BRIDGE, f"{self.address}/24", default=f"{net.NODES}.1")
        self.process = None
        self.home.mkdir(parents=True)

    def configure(self):
        ring, data = self.ring, self.home / "data"
        old = ring.version.old_keys
        text = COMMON_KEYS.format(token=self.token, seeds=",".join(ring.seeds),
                                  address=self.address, data=data)
        text += (OLD_KEYS if old else NEW_KEYS) + ring.version.yaml
        if ring.auth:
            text += AUTH_KEYS.format(ms="_in_ms" if old else "", zero="0" if old else "0ms")
        if ring.tls:
            text += TLS_KEYS.format(keystore=ring.tls / "node.p12")
        text += ring.yaml.replace("NUMBER", str(self.number))
        (self.home / "cassandra.yaml").write_text(text)
        (self.home / "rackdc").write_text(f"dc={self.dc}\nrack=r{self.number}\n")
        (self.home / "logback.xml").write_text(LOGBACK.format(level="INFO"))

    def start(self, archive=None, joining=False):
        """`archive`: write the class archive there at exit, in place of using the ring's. `joining`: to a ring that is complete
        without it; nobody reads from it before it has the schema and its share of the rows, and it serves no client before."""
        ring, home = self.ring, self.home
        sharing = ([f"-XX:ArchiveClassesAtExit={archive}"] if archive else
                   [f"-XX:SharedArchiveFile={ring.archive}", "-Xshare:auto"] if ring.archive else [])
        agent = [f"-javaagent:{next(ring.lib.glob('jamm*.jar'))}"] if ring.version.agent else []
        command = [
            "ip", "netns", "exec", self.namespace, "java", *HEAP, *sharing, *agent, *modules(),
            "-Djdk.attach.allowAttachSelf=true", "-Djava.security.manager=allow",
            "-Dio.netty.tryReflectionSetAccessible=true", f"-Djava.io.tmpdir={home}",
            f"-Dcassandra.config=file://{home}/cassandra.yaml", f"-Dcassandra-rackdc.properties=file://{home}/rackdc",
            f"-Dlogback.configurationFile=file://{home}/logback.xml", f"-Dcassandra.storagedir={home}/data",
            "-Dcassandra-foreground=yes", *FAST, *(JOINING if joining else []), "-cp", ring.classpath, "org.apache.cassandra.service.CassandraDaemon",
        ]
        with open(home / "out.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=home,
                                            start_new_session=True, env={**os.environ, "MALLOC_ARENA_MAX": "2"})

    def alive(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"node {self.number} ended with {self.process.returncode}:\n{self.log_tail()}")

    def log_tail(self):
        return "\n".join((self.home / "out.log").read_text(errors="replace").splitlines()[-15:])

    def send(self, number):
        self.process.send_signal(number)

    def stop(self, how=signal.SIGTERM):
        """Waits until the process is gone: SIGTERM lets it announce itself as leaving, SIGKILL does not."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(timeout=60)

    def connect(self):
        return cql.Connection(self.address, credentials=CREDENTIALS, **self.ring.client)

    def query(self, text):
        with self.connect() as connection:
            return connection.query(text)

    def open(self):
        try:
            return self.query("SELECT host_id, rpc_address, tokens FROM system.local")[0]
        except cql.Refused as error:
            if error.code in (0x0100, 0x1000):  # the first role is not created yet; the nodes with the roles are not all there
                return None
            raise

    def wait_open(self, seconds=240):
        return until(f"node {self.number} answers", self.open, seconds, during=self.alive)

    def move(self, address):
        """The stopped node's next address, with the same data. Who starts from now on finds it there."""
        net.move(self.namespace, self.address, address, f"{net.NODES}.1")
        self.ring.seeds = [address if seed == self.address else seed for seed in self.ring.seeds]
        self.address = address
        self.configure()

    def nodetool(self, *arguments, timeout=120):
        command = ["ip", "netns", "exec", self.namespace, "java", "-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                   f"-Duser.home={self.ring.home}", *modules(), f"-Dlogback.configurationFile=file://{self.ring.home}/tools.xml",
                   "-cp", self.ring.tools, "org.apache.cassandra.tools.NodeTool", "-h", "127.0.0.1", "-p", "7199", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout).stdout


class Ring:
    """`version` is a key of VERSIONS; `tls` a directory with node.p12 (see certificates.py), or None; `dcs` the data center of each node,
    where it is not dc1 for all `count`; `yaml` what else is in cassandra.yaml, with NUMBER for the node's own."""

    def __init__(self, version="5.0", count=3, auth=False, tls=None, dcs=None, yaml=""):
        dcs = dcs or ("dc1",) * count
        count = len(dcs)
        self.name, self.version, self.auth, self.tls = version, VERSIONS[version], auth, tls
        self.yaml = yaml
        # How the rig comes to a node: `ca` and `pair` of cql.Connection, where plain is not enough.
        self.client = {}
        self.lib = cache.jars(f"cassandra-{self.version.release}", self.version.coordinates, self.version.exclusions)
        self.classpath = ":".join(str(p) for p in sorted(self.lib.glob("*.jar")))
        self.tools = self.classpath
        self.home = cache.RUN / f"cassandra-{self.version.release}"
        if self.home.exists():
            shutil.rmtree(self.home)
        self.home.mkdir(parents=True)
        (self.home / "tools.xml").write_text(LOGBACK.format(level="ERROR"))
        tokens = TOKENS if count > 2 else TWO_TOKENS
        self.seeds = [f"{net.NODES}.{10 + n}" for n in range(1, count + 1)]
        self.archive = None
        self.archive = self.class_archive()
        self.nodes = [Node(self, n, tokens[n - 1], dc) for n, dc in enumerate(dcs, 1)]

    def class_archive(self):
        """Class data sharing: a node starts in two thirds of the time. Made once for each release."""
        archive = self.lib.parent / "classes.jsa"
        if self.version.agent:
            return None  # an agent and an archive exclude each other
        if archive.exists():
            return archive
        print(f"making the class archive of {self.version.release} …", flush=True)
        node = Node(self, 1, TOKENS[0])
        node.configure()
        node.start(archive=archive)
        node.wait_open()
        node.stop()
        shutil.rmtree(node.home)
        net.ip("netns", "del", node.namespace)
        return archive if archive.exists() else None

    def start(self):
        for node in self.nodes:
            node.configure()
            node.start()
        for node in self.nodes:
            node.wait_open()
        for node in self.nodes:
            until(f"node {node.number} knows every other", lambda n=node: self.complete(n), 60, during=node.alive)
        return self

    def peers(self, node):
        return node.query(f"SELECT * FROM system.{'peers_v2' if self.version.has_peers_v2 else 'peers'}")

    def complete(self, node):
        rows = [row for row in self.peers(node) if row["host_id"] and row["tokens"] and row["schema_version"]]
        return len(rows) == len(self.nodes) - 1

    def truth(self):
        """host_id → address, dc, rack, tokens, as the nodes themselves say (each node's own local row)."""
        found = {}
        for node in self.nodes:
            row = node.query("SELECT host_id, data_center, rack, tokens FROM system.local")[0]
            found[str(row["host_id"])] = {"address": node.address, "dc": row["data_center"], "rack": row["rack"],
                                          "tokens": sorted(row["tokens"]), "number": node.number}
        return found

    def add(self):
        """A fourth node; returns it when the others know it."""
        node = Node(self, 4, TOKENS[3])
        node.configure()
        node.start(joining=True)
        node.wait_open()
        self.nodes.append(node)
        for other in self.nodes:
            until(f"node {other.number} knows node 4", lambda n=other: self.complete(n), 60)
        return node

    def remove(self, node):
        """Decommissions `node` and ends its process."""
        node.nodetool("decommission")
        node.stop(signal.SIGKILL)
        self.nodes.remove(node)
        net.ip("netns", "del", node.namespace)
        # What it had to say of the reads that it could not answer.
        (node.home / "out.log").replace(self.home / f"node{node.number}-removed.log")
        shutil.rmtree(node.home)

    def restart(self):
        """All nodes at once, with the configuration that they are to have now."""
        for node in self.nodes:
            node.send(signal.SIGTERM)
        for node in self.nodes:
            node.stop()
        return self.start()

    def kill(self):
        for node in self.nodes:
            node.stop(signal.SIGKILL)
