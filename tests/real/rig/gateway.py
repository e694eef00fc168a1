"""The program under test, in a namespace between the nodes and the clients."""
import json
import os
import shutil
import signal
import subprocess
import urllib.request

from . import cache, net
from .secrets import SEARCHED
from .wait import until

FIRST_PORT = 9042


def build(rewriting_switch=False, release=False):
    """The binary. With `rewriting_switch` it is one that can be told to leave rows as they are: only the rig's
    counter-check uses it, to see every assertion fail."""
    if os.environ.get("CQLGATE_BINARY") and not rewriting_switch:
        return os.environ["CQLGATE_BINARY"]  # another build, an older or an optimised one
    target = os.environ.get("CARGO_TARGET_DIR") or str(cache.CHECKOUT / "target")
    if rewriting_switch:
        target = str(cache.ROOT / "gateway-switch")
    features = ["--features", "rewriting-switch"] if rewriting_switch else []
    profile = ["--release"] if release else []
    cache.run("cargo", "build", "--locked", "--bin", "cqlgate", *profile, *features, cwd=cache.CHECKOUT, env={"CARGO_TARGET_DIR": target})
    return f"{target}/{'release' if release else 'debug'}/cqlgate"


class Gateway:
    """`discovery` is "nodes" or "contact_points"; `gateway_pod.py` has the third. `number` 2 and more stand beside the first."""

    direct = False

    def __init__(self, ring, discovery="nodes", credentials=None, tls=None, rewriting=True, number=1, release=False, level=None):
        self.ring, self.discovery, self.tls, self.rewriting, self.number, self.level = ring, discovery, tls, rewriting, number, level
        self.home = cache.RUN / ("gateway" if number == 1 else f"gateway{number}")
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        self.namespace = net.gateway_namespace(number)
        self.config = self.home / "cqlgate.yaml"
        self.config.write_text(self.yaml(credentials))
        self.binary = build(rewriting_switch=not rewriting, release=release)
        self.process = None

    def yaml(self, credentials):
        lines = [f"listen: 0.0.0.0:{FIRST_PORT}-{FIRST_PORT + 9}", f"advertise: {net.GATEWAY}", "admin: 0.0.0.0:9180", "discovery:"]
        if self.discovery == "nodes":
            lines.append("  nodes:")
            lines += [f'    - {{name: cassandra-{n.number}, address: "{n.address}:9042", port: {FIRST_PORT + n.number - 1}}}'
                      for n in self.ring.nodes]
        else:
            points = ", ".join(f'"{n.address}:9042"' for n in self.ring.nodes)
            lines += [f"  contact_points: [{points}]", "  state_file: ports.json"]
        if credentials:
            (self.home / "password").write_text(credentials[1])
            SEARCHED.passwords.add(credentials[1])
            lines += ["probe:", f"  username: {credentials[0]}", "  password_file: password"]
        if self.tls:
            lines += ["tls:", f"  clients: {{certificate: {self.tls}/gateway.pem, key: {self.tls}/gateway.key}}",
                      f"  nodes: {{ca: {self.tls}/ca.pem, verify: full}}"]
        if self.level:
            lines.append(f"log: {{level: {self.level}}}")
        return "\n".join(lines) + "\n"

    def command(self):
        return [self.binary, "run", "--config", str(self.config)]

    def environment(self):
        return {**os.environ, **({} if self.rewriting else {"CQLGATE_REWRITING": "off"})}

    def spawn(self):
        with open(self.home / "out.log", "ab") as log:
            self.process = subprocess.Popen(["ip", "netns", "exec", self.namespace, *self.command()], stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, start_new_session=True, env=self.environment())

    def wait(self):
        until("the gateway announces every node", self.complete, 30, during=self.alive)
        return self

    def start(self):
        self.spawn()
        return self.wait()

    def alive(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the gateway ended with {self.process.returncode}:\n{self.log_tail()}")

    def log_tail(self):
        return "\n".join((self.home / "out.log").read_text(errors="replace").splitlines()[-25:])

    def admin(self, path):
        with urllib.request.urlopen(f"http://{net.gateway_inside(self.number)}:9180{path}", timeout=3) as answer:
            return answer.read().decode()

    def topology(self):
        return json.loads(self.admin("/topology"))

    def complete(self):
        up = [n for n in self.topology()["nodes"] if n["state"] == "up"]
        return len(up) >= len(self.ring.nodes)

    def rows(self):
        """(a ring's node, its row of /topology or None), by where each node really is, not by what the gateway believes of ids."""
        found = {row["address"]: row for row in self.topology()["nodes"]}
        return [(node, found.get(f"{node.address}:9042")) for node in self.ring.nodes]

    def port_of(self, node):
        """The advertised port of a ring's node; None while it has none."""
        return next((row["port"] for found, row in self.rows() if found is node and row), None)

    def advertised(self):
        """host_id → ip:port that clients must see; None of a node that is not up."""
        found = {node.number: row["advertised"] for node, row in self.rows() if row and row["state"] == "up"}
        return {host_id: found.get(n["number"]) for host_id, n in self.ring.truth().items()}

    def stop(self, how=signal.SIGTERM):
        if self.process:
            pages = SEARCHED.pages(self) if how == signal.SIGTERM and self.process.poll() is None else {}
            if self.process.poll() is None:
                self.process.send_signal(how)
                self.process.wait(timeout=90)
            SEARCHED.search(self, pages)


class Direct:
    """No gateway: drivers meet the nodes themselves, to tell a driver's fault from the gateway's."""

    direct = True

    def __init__(self, ring):
        self.ring = ring

    def start(self):
        return self

    def alive(self):
        pass

    def advertised(self):
        return {host_id: f"{n['address']}:9042" for host_id, n in self.ring.truth().items()}

    def stop(self, how=None):
        pass
