"""An address for each node, and paths: what clients are told depends on the port and on where they come from.

HAProxy stands in front as the load balancers would: the same port at three addresses, each of which leads to a port of the gateway. First every
driver, those too that know one port or tell nodes apart by address alone; then clients among the nodes and clients outside at the same
gateway, at the same moment.
"""
from dataclasses import replace

from . import cache, drivers, net
from .drivers import DRIVERS
from .gateway import FIRST_PORT, Direct, Gateway
from .haproxy import DEFAULTS, HAProxy
from .suites import Suite, ring_with_schema

PORTS = range(FIRST_PORT, FIRST_PORT + len(net.ADDRESSES))
# Those that know one port apply it to all nodes.
ONE_PORT = ("node", "scylla")


def listed(dialled):
    """`advertise` as a list: for each port that is listened on its address, and the port that `dialled` makes of it."""
    entries = (f"{{ports: {port}, address: {address}, port: {dialled(port)}}}" for port, address in zip(PORTS, net.ADDRESSES))
    return f"[{', '.join(entries)}]"


def same(_port):
    return FIRST_PORT


def listened(port):
    return port


class Addressed(Gateway):
    """Listens inside. `told` is what the configuration says of addresses; `proxy` is how HAProxy's headers are taken, where it sends them."""

    def __init__(self, ring, told, dialled=same, proxy=""):
        self.told, self.dialled, self.proxy = told, dialled, proxy
        super().__init__(ring, discovery="contact_points")

    def yaml(self, credentials):
        text = super().yaml(credentials)
        for line, instead in ((f"listen: 0.0.0.0:{FIRST_PORT}-{FIRST_PORT + 9}", f"listen: {net.gateway_inside()}:{PORTS[0]}-{PORTS[-1]}"),
                              (f"advertise: {net.GATEWAY}", self.told)):
            if line not in text:
                raise RuntimeError(f"no {line} in {text}")
            text = text.replace(line, instead)
        return text + self.proxy

    def spawn(self):
        for address in net.ADDRESSES[2:]:
            net.ip("-n", self.namespace, "addr", "replace", f"{address}/24", "dev", "eth1")
        super().spawn()

    def start(self):
        super().start()
        sends = " send-proxy-v2" if self.proxy else ""
        listen = "".join(f"listen p{port}\n  bind {address}:{self.dialled(port)}\n  server s {net.gateway_inside()}:{port}{sends}\n"
                         for port, address in zip(PORTS, net.ADDRESSES))
        last = f"src {net.ADDRESSES[-1]} and sport = :{self.dialled(PORTS[-1])}"
        self.balancer = HAProxy(self.namespace, cache.RUN / "balancer", "global\n  nbthread 1\n" + DEFAULTS + listen, last)
        return self

    def stop(self, *how):
        self.balancer.stop()
        super().stop(*how)


class EachItsOwn(Suite):
    """Drivers of which those in `whole` must see every node."""

    def __init__(self, report, ring, gateway, whole):
        super().__init__(report, ring, gateway, gateway.direct)
        self.whole = whole

    def driver(self, name):
        driver = DRIVERS[name]
        return replace(driver, view="node ports", contacts=1, faults={}, deaf="" if self.direct else driver.deaf) if name in self.whole else driver

    def client(self, name):
        if name not in self.clients:
            self.clients[name] = net.Client(name, len(self.clients) + 1, self.direct, to=net.ADDRESSES)
        return self.clients[name]

    def contacts(self, nodes):
        if self.direct:
            return super().contacts(nodes)
        told = {node.number: row["advertised"] for node, row in self.gateway.rows() if row}
        return [told[node.number] for node in nodes]

    def program(self, name, *arguments, **more):
        return super().program(name, *arguments, token_aware=name in self.whole, **more)


LIFE = ("death", "control", "move", "schema", "end")


def run(report, direct=False, names=("node", "gocql", "scylla", "java", "python"), steps=("cells", *LIFE, "ports", "paths")):
    drivers.prepare(names)
    report.details = True
    ring = ring_with_schema()
    if "cells" in steps:
        gateway = Direct(ring) if direct else Addressed(ring, f"advertise: {listed(same)}")
        suite = EachItsOwn(report, ring, gateway.start(), names)
        for name in names:
            suite.cell("addresses", name)
        suite.live("addresses", names, [step for step in steps if step in LIFE])
        suite.gateway.stop()
    if "ports" in steps and not direct:
        # Other ports at other addresses: enough for who tells nodes apart by address, not for who applies one port to all.
        whole = [name for name in names if name not in ONE_PORT]
        suite = EachItsOwn(report, ring, Addressed(ring, f"advertise: {listed(listened)}", listened).start(), whole)
        for name in names:
            suite.cell("addresses", name, note=" ports")
        suite.gateway.stop()
    if "paths" in steps and not direct:
        from . import paths  # which needs this file

        paths.run(report, ring, names)
    ring.kill()
