"""Who a client is at nodes that know people by certificates (CEP-34, MutualTlsAuthenticator), behind a gateway that ends TLS: each client
that is mapped has a certificate there in its name, and nobody else comes to a node.

Cassandra 5.0 asks for a login all the same and does not look at it, so that drivers have to have one, whatever it says.
"""
import json


from . import assertions as a
from . import cache, certificates, cql, drivers
from .certified import Certified, adder, clients, metric, mutual_ring, nodes, reach
from .suites import Suite
from .versions import MUTUAL_AUTH_KEYS, MUTUAL_TLS_KEYS
from .wait import until

# Errors of CQL (native_protocol_v4.spec section 9).
UNAUTHORIZED, BAD_CREDENTIALS, UNAVAILABLE = 0x2100, 0x0100, 0x1000
ANY_LOGIN = ("anybody", "anything")


def ring_of_identities(keys):
    """Two nodes. The first superuser has a password and comes without TLS, which 5.0 asks no certificate of; it gives the first identities.
    Then there are no passwords any more."""
    ring = mutual_ring(keys, count=2,
                       yaml=MUTUAL_AUTH_KEYS.format(authenticator="MutualTlsWithPasswordFallbackAuthenticator"))
    for statement in ("CREATE ROLE IF NOT EXISTS app WITH LOGIN = true", "GRANT SELECT ON KEYSPACE k1 TO app", "GRANT SELECT ON KEYSPACE k3 TO app",
                      "CREATE ROLE IF NOT EXISTS gateway WITH LOGIN = true",
                      "ALTER KEYSPACE system_auth WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 2}",
                      f"ADD IDENTITY IF NOT EXISTS '{certificates.spiffe('role')}' TO ROLE 'app'", f"ADD IDENTITY IF NOT EXISTS '{certificates.spiffe('inside')}' TO ROLE 'gateway'",
                      f"ADD IDENTITY IF NOT EXISTS '{certificates.spiffe('rig')}' TO ROLE 'cassandra'"):
        until(statement, lambda text=statement: done(ring, text), 60, every=1)
    for node in ring.nodes:
        node.nodetool("repair", "system_auth")
    ring.yaml = MUTUAL_AUTH_KEYS.format(authenticator="MutualTlsAuthenticator") + MUTUAL_TLS_KEYS.format(
        optional="false", keystore=f"{keys}/nodeNUMBER.p12", truststore=f"{keys}/trust.p12")
    ring.client = {"ca": keys / "ca.pem", "pair": certificates.pair(keys, "rig")}
    return ring.restart()


def done(ring, statement):
    """Whether it is; not yet where the first node takes the other for down, as a busy machine has it."""
    try:
        ring.nodes[0].query(statement)
    except cql.Refused as refused:
        if refused.code != UNAVAILABLE:
            raise
        return False
    return True


def mapped(keys):
    """What clients must show, and of whom the gateway knows who it is at the nodes: the app, and nobody else."""
    return clients(keys, f", client_auth: {{mode: required, ca: {keys}/clients.pem}}"), \
        f", identities: [{{client: 'CN:app', certificate: {keys}/role.pem, key: {keys}/role.key}}]"


def role(keys):
    """The app may read and may not write, as its role there has it."""
    with reach(keys, certificates.pair(keys, "app")) as connection:
        connection.query("SELECT v FROM k3.t WHERE k = 1")
        try:
            connection.query("INSERT INTO k3.t (k, v) VALUES (1, 'written')")
        except cql.Refused as refused:
            if refused.code != UNAUTHORIZED or "app" not in str(refused):
                raise
            return f"reads; its write: {refused}"
    raise a.Failed("it wrote")


def unmapped(gateway, keys):
    """The other one's certificate is as good, and it is nobody at the nodes: it is told so, and no node is dialled."""
    dialled = metric(gateway, "cqlgate_dial_seconds_count")
    try:
        reach(keys, certificates.pair(keys, "other"))
    except cql.Refused as refused:
        if refused.code != BAD_CREDENTIALS:
            raise
        until("it is counted", lambda: metric(gateway, 'cqlgate_connections_refused_total{reason="no_identity"}') == 1, 10)
        now = metric(gateway, "cqlgate_dial_seconds_count")
        if now != dialled:
            raise a.Failed(f"{now - dialled} dials")
        return f"{refused}; no node dialled"
    raise a.Failed("the other one is served")


def ready(gateway, wanted):
    """/readyz says this, and every node is up."""
    text = until(f"/readyz: {wanted}", lambda: (said := gateway.admin("/readyz").strip()).startswith(wanted) and said, 20)
    if wanted == "ready" and text != wanted:
        raise a.Failed(f"/readyz says {text}")
    if wanted == "ready" and any(not node["host_id"] for node in gateway.topology()["nodes"]):
        raise a.Failed(f"the probe does not know who the nodes are: {gateway.topology()['nodes']}")
    if not gateway.complete():
        raise a.Failed(f"not every node is up: {gateway.topology()['nodes']}")
    return text.replace("\n", "; ")


def without(ring, text):
    """Nodes that require a certificate let nobody in who has none, the gateway's own probe included: dead, and it is said why."""
    gateway = Certified(ring, text)
    gateway.spawn()
    try:
        until("the gateway answers", gateway.topology, 20, during=gateway.alive)
        wanted = "tls.nodes.certificate"

        def lines():
            return [line for line in gateway.log_tail().splitlines() if "the node is dead" in line and wanted in line]
        line = until(f"a line with {wanted}", lines, 20, during=gateway.alive)[0]
        return json.loads(line)["error"]
    finally:
        gateway.stop()


def run(report, names=("java", "python")):
    drivers.prepare(names)
    report.details = True
    keys = certificates.mutual(cache.RUN / "certificates")
    # A certificate of a good CA, and nobody at the nodes.
    certificates.sign(keys, "stranger", certificates.client(certificates.spiffe("stranger")))
    ring = ring_of_identities(keys)
    add = adder(report, "identities")
    of_clients, identities = mapped(keys)
    ca, pair = keys / "ca.pem", certificates.pair(keys, "app")

    def stand(cell, of_nodes, wanted):
        suite = Suite(report, ring, Certified(ring, of_clients + of_nodes))
        suite.gateway.spawn()
        add(cell, "probe", lambda: suite.gateway.wait() and ready(suite.gateway, wanted))
        for name in names:
            suite.cell("identities", name, credentials=ANY_LOGIN, ca=ca, pair=pair, note=f" {cell}")
        add(cell, "role", lambda: role(keys))
        add(cell, "unmapped", lambda: unmapped(suite.gateway, keys))
        suite.gateway.stop()
    stand("all mapped", nodes(keys, more=identities), "ready")
    own = f", certificate: {keys}/stranger.pem, key: {keys}/stranger.key"
    stand("gateway nobody", nodes(keys, certificate=False, more=own + identities), "ready\ndegraded")
    add("gateway without one", "probe", lambda: without(ring, of_clients + nodes(keys, certificate=False, more=identities)))
    ring.kill()
