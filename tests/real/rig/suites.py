"""Which drivers, in which cells, against which ring."""
import os
import time

from . import assertions as a
from . import cache, certificates, cqlsh, drivers, leak as hunting, life, net, schema
from .cassandra import PLANTED, Ring
from .drivers import DRIVERS
from .gateway import FIRST_PORT, Direct, Gateway, build
from .program import Died, Program
from .report import Report
from .secrets import SEARCHED

# For everything in which nodes join or move; `cluster.nodes` is what `matrix` and `secured` use first.
DISCOVERY = os.environ.get("CQLGATE_DISCOVERY", "contact_points")
# No role's password.
WRONG = "planted-Wm3Zt8"


class Suite:
    """One ring and what stands before it, with a client namespace for each driver."""

    def __init__(self, report, ring, gateway, direct=False):
        self.report, self.ring, self.gateway, self.direct = report, ring, gateway, direct
        self.clients = {}

    def driver(self, name):
        return DRIVERS[name]

    def client(self, name):
        if name not in self.clients:
            self.clients[name] = net.Client(name, len(self.clients) + 1, self.direct)
        return self.clients[name]

    def contacts(self, nodes):
        """What a program is told of `nodes`: their own addresses, or their ports."""
        if self.direct:
            return [f"{n.address}:9042" for n in nodes]
        ports = [self.gateway.port_of(n) or FIRST_PORT + n.number - 1 for n in nodes]
        return [f"{net.GATEWAY}:{port}" for port in ports]

    def program(self, name, version=None, compression="none", credentials=None, ca=None, **more):
        driver = self.driver(name)
        return Program(driver, self.client(name), self.contacts(self.ring.nodes[:driver.contacts]), version, compression, credentials, ca, **more)

    def cell(self, suite, name, version=None, compression="none", credentials=None, ca=None, note="", **more):
        """CA1 to CA4 in one cell. The whole cell never outlives its program."""
        label = f"{f'v{version}' if version else 'default'} {compression}{note}"
        client = self.client(name)
        client.reset()
        expected = a.Expectation(self.ring, self.gateway)

        def add(assertion, check):
            try:
                self.report.add(suite, name, label, assertion, "ok", check())
            except (a.Failed, Died) as failed:
                self.report.add(suite, name, label, assertion, "failed", failed)

        try:
            program = self.program(name, version, compression, credentials, ca, **more)
        except Died as failed:
            for assertion in ("CA2", "CA3", "CA4"):
                self.report.add(suite, name, label, assertion, "failed", failed)
            add("CA1", lambda: a.ca1(client))
            return
        spoken = program.ready["protocol"].lower().lstrip("v")
        if version and spoken != str(version):
            self.report.add(suite, name, label, "CA2", "failed", f"speaks v{spoken}")
        add("CA2", lambda: f"{a.ca2(program, expected)}, v{spoken} {program.ready['compression']}")
        add("CA3", lambda: a.ca3(program, expected))
        add("CA4", lambda: a.ca4(program, expected))
        program.quit()
        add("CA1", lambda: a.ca1(client))

    def shell(self, suite, credentials=None):
        expected = a.Expectation(self.ring, self.gateway)
        client = self.client("cqlsh")
        client.reset()
        contact = self.contacts(self.ring.nodes[:1])[0]
        for assertion, check in (("CA2", lambda: cqlsh.nodes(client, expected, contact, credentials)),
                                 ("COPY", lambda: cqlsh.copy(client, expected, contact, self.ring.home, credentials)),
                                 ("CA1", lambda: a.ca1(client))):
            try:
                self.report.add(suite, "cqlsh", "default", assertion, "ok", check())
            except a.Failed as failed:
                self.report.add(suite, "cqlsh", "default", assertion, "failed", failed)

    def programs(self, suite, names):
        """A program of each driver in its default cell, the guards' counters set to nothing; one that does not start has failed."""
        started = []
        for name in names:
            self.client(name).reset()
            try:
                started.append(self.program(name))
            except Died as failed:
                self.report.add(suite, name, "life", "CA5", "failed", failed)
        return started

    def recorder(self, suite):
        return lambda p, assertion, outcome, detail: self.report.add(suite, p.driver.name, "life", assertion, outcome, detail)

    def live(self, suite, names, steps, wait=60):
        """CA5 to CA9 with all of `names` at once, in their default cells."""
        life.live(self.ring, self.gateway, self.programs(suite, names), self.contacts, self.recorder(suite), steps, wait)


def ring_with_schema(**more):
    ring = Ring(**more).start()
    schema.create(ring)
    return ring


def stand(ring, direct, **more):
    return (Direct(ring) if direct else Gateway(ring, **more)).start()


def default_cells(suite, names, title):
    for name in names:
        suite.cell(title, name)
    suite.shell(title)


ALL_STEPS = ("death", "control", "growth", "move", "schema", "end")


def usual(report, direct=False, names=tuple(DRIVERS), steps=ALL_STEPS):
    """Every driver in one cell, uncompressed and in the version that it chooses itself where it can, then the cluster's life with all of them."""
    drivers.prepare(names)
    ring = ring_with_schema()
    suite = Suite(report, ring, stand(ring, direct, discovery=DISCOVERY), direct)
    title = "direct" if direct else "usual"
    default_cells(suite, names, title)
    suite.live(title, names, steps)
    suite.gateway.stop()
    ring.kill()


def ci(report, direct=False):
    """The short share: Java 4, Python and scylla; one death, one address move; Python with a password and TLS, and with a certificate."""
    names = ("java", "python", "scylla")
    drivers.prepare(names)
    ring = ring_with_schema()
    suite = Suite(report, ring, stand(ring, direct, discovery=DISCOVERY), direct)
    suite.cell("ci", "java", 4, "snappy")
    suite.cell("ci", "java", 5, "lz4")
    suite.cell("ci", "python", 3, "lz4")
    suite.cell("ci", "python", 5, "none")
    suite.cell("ci", "scylla")
    suite.shell("ci")
    suite.live("ci", names, ("death", "move", "schema", "end"))
    if not direct:
        hunting.check(report, "ci", ring, suite.gateway, 20)
    suite.gateway.stop()
    ring.kill()
    secured_ci(report, direct)


def secured_ci(report, direct):
    """Two nodes: what is asked is whether passwords, TLS on both sides and a client's certificate work at all; and that a gateway which says all
    that it can say tells none of them."""
    from .certified import Certified, clients

    keys = certificates.mutual(cache.RUN / "certificates")
    ring = ring_with_schema(count=2, auth=True, tls=keys)
    suite = Suite(report, ring, stand(ring, direct, discovery=DISCOVERY, credentials=PLANTED, tls=keys, level="trace"), direct)
    suite.cell("ci", "python", credentials=PLANTED, ca=keys / "ca.pem", note=" password tls")
    suite.gateway.stop()
    if not direct:
        gateway = Certified(ring, clients(keys, f", client_auth: {{mode: required, ca: {keys}/clients.pem}}") + "log: {level: trace}\n")
        suite = Suite(report, ring, gateway.start())
        suite.cell("ci", "python", credentials=PLANTED, ca=keys / "ca.pem", pair=certificates.pair(keys, "app"), note=" password mtls")
        suite.gateway.stop()
    ring.kill()


def matrix(report, direct=False, names=tuple(DRIVERS)):
    """CA1 to CA4 in every cell of version and compression, the nodes listed in the file."""
    drivers.prepare(names)
    ring = ring_with_schema()
    suite = Suite(report, ring, stand(ring, direct), direct)
    for name in names:
        for version, compression in DRIVERS[name].cells:
            suite.cell("matrix", name, version, compression)
    suite.shell("matrix")
    suite.gateway.stop()
    ring.kill()


def secured(report, direct=False, names=tuple(DRIVERS)):
    """A cluster with passwords: first plain, the gateway without credentials; then TLS on both sides, with them."""
    drivers.prepare(names)
    keys = certificates.make(cache.RUN / "certificates")
    ring = ring_with_schema(auth=True, tls=keys)
    suite = Suite(report, ring, stand(ring, direct), direct)
    for name in names:
        suite.cell("auth", name, credentials=PLANTED)
    suite.shell("auth", PLANTED)
    suite.gateway.stop()
    if not direct:
        refused(report, ring, [name for name in names if name in ("java", "python")])
    suite = Suite(report, ring, stand(ring, direct, discovery=DISCOVERY, credentials=PLANTED, tls=keys), direct)
    for name in names:
        suite.cell("tls", name, credentials=PLANTED, ca=keys / "ca.pem")
    suite.gateway.stop()
    ring.kill()


def refused(report, ring, names):
    """Nodes refuse the gateway's own login: clients log in as themselves, and it is said."""
    suite = Suite(report, ring, stand(ring, False, credentials=(PLANTED[0], WRONG)))

    def ready():
        text = suite.gateway.admin("/readyz").strip()
        if not text.startswith("ready\ndegraded, by 3 nodes: login as probe.username refused (0x0100)"):
            raise a.Failed(f"/readyz says {text}")
        return text
    for name in names:
        suite.cell("refused", name, credentials=PLANTED)
    try:
        report.add("refused", "gateway", "a wrong password", "degraded", "ok", ready().replace("\n", "; "))
    except (a.Failed, OSError) as failed:
        report.add("refused", "gateway", "a wrong password", "degraded", "failed", failed)
    suite.gateway.stop()


def versions(report, direct=False, which=("4.1", "4.0", "6.0", "3.11"), nodes=2):
    """Java 4 and Python, CA1 to CA4, against other releases of Cassandra."""
    drivers.prepare(("java", "python"))
    report.details = True
    for version in which:
        try:
            ring = ring_with_schema(version=version, count=nodes)
        except Exception as error:  # a release that does not run here is a result too
            report.add(version, "cassandra", f"{nodes} nodes", "CA2", "failed", error)
            net.clear()
            net.bridges()
            continue
        suite = Suite(report, ring, stand(ring, direct), direct)
        for name in ("java", "python"):
            suite.cell(version, name)
            if version != "3.11":
                suite.cell(version, name, 4, "lz4")
        suite.gateway.stop()
        ring.kill()


def off(report, direct=False, names=tuple(DRIVERS), steps=ALL_STEPS):
    """The counter-check: rewriting switched off, every assertion must be able to fail, of the single node View's drivers too."""
    drivers.prepare(names)
    ring = ring_with_schema()
    suite = Suite(report, ring, stand(ring, False, discovery=DISCOVERY, rewriting=False))
    default_cells(suite, names, "off")
    suite.live("off", names, steps, wait=15)
    suite.gateway.stop()
    ring.kill()


def leak(report, direct=False, which=("5.0", "4.1"), seconds=600.0):
    """The hunt for nodes' own addresses, in each release; `seconds` are for all of it, the rings' starts included."""
    drivers.DRIVERS["python"].command()
    build(), build(rewriting_switch=True)
    report.details = True
    begun = time.monotonic()
    for turn, version in enumerate(which):
        ring = ring_with_schema(version=version)
        gateway = Gateway(ring, rewriting=False).start()
        hunting.counter_check(report, "leak", ring, gateway)
        gateway.stop()
        gateway = Gateway(ring).start()
        end = begun + seconds * (turn + 1) / len(which)
        hunting.check(report, "leak", ring, gateway, max(20.0, end - time.monotonic()), stirred=True)
        gateway.stop()
        ring.kill()


def flood(report, direct=False, seconds=120.0):
    """Strangers by the thousand, plain and with TLS, `seconds` each; in a file of its own."""
    from . import flood as flooding
    from . import haproxy

    drivers.DRIVERS["python"].command()
    build(release=True)
    report.details = True
    haproxy.program()
    ring = ring_with_schema(count=1)
    flooding.run(report, ring, seconds)
    ring.kill()


def kubernetes(report, direct=False, **more):
    """The whole mission in Kubernetes; what it is made of is in a file of its own, which needs this one."""
    from . import kubernetes_suite

    kubernetes_suite.run(report, **more)


def kubernetes_api(report, direct=False, **more):
    """What the Kubernetes API can do to a gateway; in a file of its own for the same reason."""
    from . import api_faults

    api_faults.run(report, **more)


def kubernetes_ci(report, direct=False, **more):
    """The short share of both."""
    from . import kubernetes_ci

    kubernetes_ci.run(report, **more)


def datacenters(report, direct=False, **more):
    """Two data centers, of which the gateway serves one; in a file of its own, which needs this one."""
    from . import datacenters as two

    two.run(report, **more)


def front(report, direct=False, **more):
    """A load balancer with PROXY v2 before the gateway; in a file of its own, which needs this one."""
    from . import front as balanced

    balanced.run(report, **more)


def certified(report, direct=False, **more):
    """Certificates on both sides; in a file of its own, which needs this one."""
    from . import certified as both

    both.run(report, **more)


def identities(report, direct=False, **more):
    """Roles by certificates, at nodes that know nobody by a password; in a file of its own, which needs this one."""
    from . import identities as roles

    roles.run(report, **more)


def rotate(report, direct=False, **more):
    """Certificates that change under load; in a file of its own, which needs this one."""
    from . import rotate as rotating

    rotating.run(report, **more)


def rolled(report, direct=False, **more):
    """Two gateways behind a load balancer, replaced under load; in a file of its own, which needs this one."""
    from . import rolled as rolling

    rolling.run(report, **more)


def ddl(report, direct=False, **more):
    """A table is created and used at once; in a file of its own, which needs this one."""
    from . import ddl as changes

    changes.run(report, direct, **more)


def addresses(report, direct=False, **more):
    """An address for each node, and clients who are told other ones by where they come from; in a file of its own, which needs this one."""
    from . import addresses as each

    each.run(report, direct, **more)


def everything(report, direct=False):
    for part in (matrix, secured, usual, datacenters):
        print(f"{part.__name__}: {part.__doc__}")
        part(report, direct)
        net.clear()
        net.bridges()


SUITES = {"usual": usual, "ci": ci, "matrix": matrix, "secured": secured, "versions": versions, "off": off, "ddl": ddl, "leak": leak, "flood": flood, "datacenters": datacenters, "front": front, "certified": certified, "identities": identities, "rotate": rotate, "rolled": rolled, "addresses": addresses, "all": everything,
          "kubernetes": kubernetes, "kubernetes-ci": kubernetes_ci, "kubernetes-api": kubernetes_api}


def run(name, direct=False, **more):
    """The report of suite `name`."""
    report = Report()
    try:
        SUITES[name](report, direct, **more)
    finally:
        if SEARCHED.gateways:
            report.add(name, "gateway", "all that was said", "secrets", SEARCHED.outcome(), SEARCHED.told())
        if report.results:
            print(f"\n{report.table()}\n\nas JSON: {report.write()}")
    return report
