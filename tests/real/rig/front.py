"""A load balancer that ends connections in front of the gateway: HAProxy with PROXY v2, as clouds' balancers have it, at the address that
clients dial. The gateway is behind it, sees the clients' own addresses all the same, and lets in whom it is to.
"""
import json
import subprocess

from . import assertions as a
from . import cache, certificates, drivers, graceful, net, reloads
from .gateway import FIRST_PORT, Gateway
from .haproxy import DEFAULTS, HAProxy
from .program import Died
from .speaker import Closed
from .suites import Suite, ring_with_schema
from .wait import Late, until

PORTS = range(FIRST_PORT, FIRST_PORT + 10)
# One that may come, and one that may not.
GUEST, STRANGER = 30, 31
# An OPTIONS frame of v4, in and out: whoever is served gets SUPPORTED.
ASK = """
import socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
    s.sendall(bytes.fromhex("040000000500000000"))
    print("served" if s.recv(9)[4:5] == b"\\x06" else "closed")
except OSError as error:
    print("closed", error)
"""


class Fronted(Gateway):
    """Listens inside, where HAProxy alone comes from."""

    def __init__(self, ring, tls=None):
        self.clients_tls = tls
        super().__init__(ring)

    def yaml(self, credentials):
        inside = net.gateway_inside()
        text = super().yaml(credentials).replace(f"listen: 0.0.0.0:{PORTS[0]}", f"listen: {inside}:{PORTS[0]}")
        text += f"proxy_protocol: {{mode: required, from: [{inside}]}}\naccess: {{deny: [{net.CLIENTS}.{10 + STRANGER}]}}\n"
        if self.clients_tls:
            text += f"tls:\n  clients: {{certificate: {self.clients_tls}/gateway.pem, key: {self.clients_tls}/gateway.key}}\n"
        return text

    def start(self):
        super().start()
        self.balancer = balancer(self.namespace)
        return self

    def stop(self, *how):
        self.balancer.stop()
        super().stop(*how)


def balancer(namespace):
    """HAProxy in the gateway's namespace, at the address that clients dial: a port there is a port of the gateway."""
    listen = "".join(f"listen p{port}\n  bind {net.GATEWAY}:{port}\n  server s {net.gateway_inside()}:{port} send-proxy-v2\n" for port in PORTS)
    text = "global\n  nbthread 1\n" + DEFAULTS + listen
    return HAProxy(namespace, cache.RUN / "balancer", text, f"src {net.GATEWAY} and sport = :{PORTS[-1]}")


def asked(number):
    """What becomes of a client in a namespace of its own."""
    client = net.Client(f"ask{number}", number)
    command = ["ip", "netns", "exec", client.full, "python3", "-c", ASK, net.GATEWAY, str(FIRST_PORT)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()


def lists(suite):
    """Two clients behind one load balancer, one of them denied."""
    guest, stranger = asked(GUEST), asked(STRANGER)
    if guest != "served" or not stranger.startswith("closed"):
        raise a.Failed(f"the one that may come: {guest}; the one that is denied: {stranger}")
    refused = [line for line in suite.gateway.admin("/metrics").splitlines() if line.startswith('cqlgate_connections_refused_total{reason="access_denied"}')]
    if not refused or refused[0].split()[1] == "0":
        raise a.Failed(f"it is not counted: {refused}")
    return f"{guest}; {stranger}; {refused[0]}"


def peers(suite, names):
    """The log has the clients' own addresses, and nobody else's."""
    lines = [json.loads(line) for line in (suite.gateway.home / "out.log").read_text().splitlines() if '"connection closed"' in line]
    seen = {line.get("fields", line)["peer"].rsplit(":", 1)[0] for line in lines}
    expected = {f"{net.CLIENTS}.{10 + number}" for number in range(1, len(names) + 1)}
    if not expected <= seen or net.gateway_inside() in seen:
        raise a.Failed(f"the log has {sorted(seen)}, expected {sorted(expected)}")
    return f"{len(lines)} connections of {', '.join(sorted(seen))}"


def renewed(suite, keys):
    """The certificate is renewed under everybody, by the same CA: the next handshake has it."""
    before = (keys / "gateway.pem").read_text()
    certificates.renew(keys)

    def taken():
        return 'cqlgate_tls_reloads_total{outcome="taken",side="clients"} 1' in suite.gateway.admin("/metrics")
    until("the renewed certificate is used", taken, 20)
    shown = subprocess.run(["ip", "netns", "exec", suite.client("java").full, "openssl", "s_client", "-connect", f"{net.GATEWAY}:{FIRST_PORT}"],
                           input="", capture_output=True, text=True, timeout=20).stdout
    now = (keys / "gateway.pem").read_text()
    if now == before or now.split("-----")[2].strip() not in shown:
        raise a.Failed(f"another certificate is shown: {shown[:200]}")
    return "shown from the next handshake on"


def run(report, names=("java", "python", "node", "gocql", "scylla")):
    drivers.prepare(names)
    keys = certificates.make(cache.RUN / "certificates")
    ring = ring_with_schema()

    def add(cell, assertion, check):
        try:
            report.add("front", "gateway", cell, assertion, "ok", check())
        except (a.Failed, Died, Late, OSError, Closed) as failed:
            report.add("front", "gateway", cell, assertion, "failed", failed)
    for tls in (None, keys):
        cell = "PROXY v2" + (" tls" if tls else "")
        suite = Suite(report, ring, Fronted(ring, tls).start())
        for name in names:
            suite.cell("front", name, ca=tls / "ca.pem" if tls else None, note=f" {cell}")
        add(cell, "peers", lambda: peers(suite, names))
        if not tls:
            add(cell, "lists", lambda: lists(suite))
            add(cell, "reloads", lambda: reloads.under_load(suite))
        else:
            add(cell, "renewed", lambda: renewed(suite, keys))
            suite.cell("front", "java", ca=keys / "ca.pem", note=f" {cell} renewed")
        suite.gateway.stop()
    graceful.run(ring, add)
    ring.kill()
