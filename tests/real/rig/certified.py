"""Certificates on both sides: every driver over each version of TLS, with a certificate of its own, with nodes that ask for the gateway's,
and over plain and TLS on one port. One ring serves all of it: plain, and TLS for who shows a certificate.
"""
import ssl

from . import assertions as a
from . import cache, certificates, cql, drivers, homemade, net
from .gateway import FIRST_PORT, Gateway
from .program import Died
from .suites import Suite, ring_with_schema
from .versions import MUTUAL_TLS_KEYS
from .wait import Late

NAMES = ("java", "python", "node", "gocql", "scylla")


class Certified(Gateway):
    """`tls` is the text of that key."""

    def __init__(self, ring, tls):
        self.text = f"tls:\n{tls}"
        super().__init__(ring)

    def yaml(self, credentials):
        return super().yaml(credentials) + self.text


def clients(keys, more=""):
    return f"  clients: {{certificate: {keys}/gateway.pem, key: {keys}/gateway.key{more}}}\n"


def nodes(keys, ca="ca", certificate=True, more=""):
    own = f", certificate: {keys}/inside.pem, key: {keys}/inside.key" if certificate else ""
    return f"  nodes: {{ca: {keys}/{ca}.pem, verify: full{own}{more}}}\n"


def metric(gateway, name):
    """The sum of what has this name and begins of its labels."""
    lines = [line for line in gateway.admin("/metrics").splitlines() if line.startswith(name)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def reach(keys, pair=None):
    """How the rig itself, which is inside, comes to the gateway."""
    return cql.Connection(net.gateway_inside(), FIRST_PORT, ca=keys / "ca.pem", pair=pair)


def nobody(gateway, keys):
    """Who shows no certificate is not let in, and who shows one of another CA is not."""
    for pair in (None, certificates.pair(keys, "rig")):
        try:
            reach(keys, pair)
        except (OSError, EOFError):
            continue
        raise a.Failed(f"served with {pair}")
    reasons = ("absent", "unknown_issuer")
    counted = [metric(gateway, f'cqlgate_client_certificates_refused_total{{reason="{reason}"}}') for reason in reasons]
    if counted != [1, 1]:
        raise a.Failed(f"{reasons} are counted {counted} times")
    with reach(keys, certificates.pair(keys, "app")) as connection:
        connection.query("SELECT host_id FROM system.local")
    return "without one, and with one of another CA: refused, and counted"


def asked(ring, keys):
    """The nodes ask for a certificate indeed."""
    for node in ring.nodes:
        try:
            cql.Connection(node.address, ca=keys / "ca.pem")
        except (ssl.SSLError, OSError, EOFError):
            continue
        raise a.Failed(f"node {node.number} speaks TLS with who shows no certificate")
    return f"{len(ring.nodes)} nodes refuse who shows none"


def adder(report, suite):
    def add(cell, assertion, check):
        try:
            report.add(suite, "gateway", cell, assertion, "ok", check())
        except (a.Failed, Died, Late, OSError, EOFError, cql.Refused) as failed:
            report.add(suite, "gateway", cell, assertion, "failed", failed)
    return add


def mutual_ring(keys, **more):
    yaml = more.pop("yaml", "") + MUTUAL_TLS_KEYS.format(optional="true", keystore=f"{keys}/nodeNUMBER.p12", truststore=f"{keys}/trust.p12")
    for number in (1, 2, 3):
        certificates.keystore(keys, "node", "ca", file=f"node{number}")
    return ring_with_schema(yaml=yaml, **more)


def cells(report, ring, keys, names):
    add = adder(report, "certified")
    ca, pair = keys / "ca.pem", certificates.pair(keys, "app")
    shown = f", client_auth: {{mode: required, ca: {keys}/clients.pem, allow: ['CN:app']}}"

    def run(kind, tls, cells, **checks):
        suite = Suite(report, ring, Certified(ring, tls).start())
        for note, more in cells:
            for name in names:
                suite.cell("certified", name, note=f" {note}", **more)
        for assertion, check in checks.items():
            add(kind, assertion, lambda: check(suite.gateway))
        suite.gateway.stop()
    run("TLS", clients(keys), [(f"TLS {version}", dict(ca=ca, tls=version)) for version in ("1.3", "1.2")])
    run("mTLS", clients(keys, shown), [("mTLS", dict(ca=ca, pair=pair))], refused=lambda gateway: nobody(gateway, keys))
    run("mTLS to nodes", clients(keys, shown) + nodes(keys), [("mTLS to nodes", dict(ca=ca, pair=pair))], refused=lambda _: asked(ring, keys))
    run("one port", clients(keys, ", plain: allowed"), [("one port plain", {}), ("one port TLS", dict(ca=ca))])


def run(report, names=NAMES, steps=("cells", "homemade")):
    drivers.prepare(names)
    keys = certificates.mutual(cache.RUN / "certificates")
    ring = mutual_ring(keys)
    if "cells" in steps:
        cells(report, ring, keys, names)
    if "homemade" in steps:
        homemade.run(report, ring, keys)
    ring.kill()
