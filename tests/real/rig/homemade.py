"""Nodes' certificates as people make them, by the recipes that are found everywhere, and a gateway that verifies them in full.

Java and OpenSSL take all of them. X.509 version 1 has no extensions, so no usage and no name; a self-signed one is its own CA or no CA at all.
"""
import json

from . import assertions as a
from . import certificates
from .certificates import keystore, keytool, openssl
from .wait import Late, until

SUBJECT = ("-subj", "/O=Example/CN=cassandra")


def version_1(keys, numbers):
    """keytool makes the key and the request, `openssl x509 -req` signs it without an extension file, keytool takes both back."""
    openssl(keys, "req", "-new", "-x509", "-nodes", "-newkey", "rsa:2048", "-keyout", "root.key", "-out", "root.pem", "-days", "30",
            "-subj", "/O=Example/CN=rootCa")
    for number in numbers:
        store = ("-keystore", f"next{number}.p12", "-storetype", "PKCS12")
        (keys / f"next{number}.p12").unlink(missing_ok=True)
        keytool(keys, "-genkeypair", "-keyalg", "RSA", "-alias", "node", "-dname", f"CN=node{number}, O=Example", "-validity", "30", *store)
        keytool(keys, "-certreq", "-alias", "node", "-file", f"v1-{number}.csr", *store)
        openssl(keys, "x509", "-req", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-in", f"v1-{number}.csr",
                "-out", f"v1-{number}.pem", "-days", "30")
        keytool(keys, "-importcert", "-alias", "rootCa", "-file", "root.pem", *store)
        keytool(keys, "-importcert", "-alias", "node", "-file", f"v1-{number}.pem", *store)
    listed = [(keys / f"v1-{number}.pem").read_text() for number in numbers]
    if "Version: 1 " not in openssl(keys, "x509", "-in", f"v1-{numbers[0]}.pem", "-noout", "-text"):
        raise a.Failed("openssl x509 -req made another version than 1")
    return listed


def one_for_all(keys, numbers):
    """`openssl req -x509`, which says CA:TRUE, for all nodes: the same file is what everybody is told to trust."""
    openssl(keys, "req", "-new", "-x509", "-nodes", "-newkey", "rsa:2048", "-keyout", "all.key", "-out", "all.pem", "-days", "30", *SUBJECT)
    for number in numbers:
        keystore(keys, "all", file=f"next{number}")
    return [(keys / "all.pem").read_text()]


def each_its_own(keys, numbers):
    """`keytool -genkeypair` on each node, and all that it exported in one truststore."""
    listed = []
    for number in numbers:
        store = ("-keystore", f"next{number}.p12", "-storetype", "PKCS12")
        (keys / f"next{number}.p12").unlink(missing_ok=True)
        keytool(keys, "-genkeypair", "-keyalg", "RSA", "-alias", "node", "-dname", f"CN=node{number}", "-validity", "30", *store)
        listed.append(keytool(keys, "-exportcert", "-rfc", "-alias", "node", *store))
    return [text[text.index("-----BEGIN"):] for text in listed]


def present(ring, keys):
    """The nodes show what is in their next keystores."""
    for node in ring.nodes:
        (keys / f"next{node.number}.p12").replace(keys / f"node{node.number}.p12")
        node.nodetool("reloadssl")


def served(report, ring, keys, listed, cell):
    from .certified import Certified, clients, nodes
    from .suites import Suite

    (keys / "listed.pem").write_text("".join(listed))
    gateway = Certified(ring, clients(keys) + nodes(keys, "listed"))
    try:
        gateway.start()
    except (Late, RuntimeError) as late:
        report.add("homemade", "gateway", cell, "CA2", "failed", f"{late}\n{gateway.log_tail()}")
        return
    suite = Suite(report, ring, gateway)
    suite.cell("homemade", "python", ca=keys / "ca.pem", note=f" {cell}")
    gateway.stop()


def refused(ring, keys):
    """The CA alone is listed: no node is up, and it is said which certificate it is and what helps."""
    from .certified import Certified, clients, nodes

    gateway = Certified(ring, clients(keys) + nodes(keys, "root"))
    gateway.spawn()
    try:
        until("the gateway answers", gateway.topology, 20, during=gateway.alive)
        parts = ("CN:node1", "X.509 version 1", "openssl x509 -req -extfile", "list it, as it is, in tls.nodes.ca")
        lines = lambda: [line for line in gateway.log_tail().splitlines() if all(part in line for part in parts)]  # noqa: E731
        line = until(f"a line with {parts}", lines, 20, during=gateway.alive)[0]
        up = [node["name"] for node in gateway.topology()["nodes"] if node["state"] == "up"]
        if up:
            raise a.Failed(f"{up} are up all the same")
        return json.loads(line)["error"]
    finally:
        gateway.stop()


def run(report, ring, keys):
    from .certified import adder

    numbers = [node.number for node in ring.nodes]
    for cell, recipe in (("one for all, CA:TRUE", one_for_all), ("keytool, each its own", each_its_own), ("version 1, listed", version_1)):
        listed = recipe(keys, numbers)
        present(ring, keys)
        served(report, ring, keys, listed, cell)
    adder(report, "homemade")("version 1, CA listed", "refused", lambda: refused(ring, keys))
