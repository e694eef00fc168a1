"""Several Services of the chart's, each with an address of its own, at a real apiserver: the gateway tells each port by what its Service's status
says, with no right but to read those by their names. No node has to answer for that: they are listed.
"""
from .assertions import Failed
from .deploy import Release
from .gateway_pod import GatewayPod
from .kubeapi import Refused
from .kubelet import Kubelet
from .wait import Late, until

FIRST = 9042
# Where no node is.
NODES = "10.250.0"
MOVED = "203.0.113.250"


class NoRing:
    nodes = ()


class Way:
    """`service`: the values' part that makes the Services; `listed` are the numbers of ports that nodes have. `means` says (Service, what is dialled)
    of a port's number."""

    def __init__(self, name, count, listed, service, means):
        self.name, self.count, self.listed, self.service, self.means = name, count, listed, service, means

    def values(self):
        nodes = [{"name": f"cassandra-{n}", "address": f"{NODES}.{n + 1}:9042", "port": FIRST + n} for n in self.listed]
        return {"image": {"repository": "registry.example.com/cqlgate"}, "service": self.service,
                "config": {"listen": f"0.0.0.0:{FIRST}-{FIRST + self.count - 1}", "discovery": {"nodes": nodes}, "drain": {"delay": "0s", "spread": "0s"}}}

    def told(self, addresses):
        """port → what clients are told, by the Services' addresses; None where there is none."""
        found = {}
        for number in self.listed:
            service, port = self.means(number)
            found[FIRST + number] = f"{addresses[service]}:{port}" if service in addresses else None
        return found


def half(number):
    return "cqlgate-a" if number < 50 else "cqlgate-b", FIRST + number


WAYS = (
    Way("per-node", 20, range(20), {"perNode": True}, lambda number: (f"cqlgate-{number}", FIRST)),
    Way("two-parts", 100, (0, 49, 50, 99), {"parts": [{"name": "a", "ports": "9042-9091"}, {"name": "b", "ports": "9092-9141"}]}, half))


def lived(plane, way):
    """From Services without an address to all of them, one of which moves; what was seen, in words."""
    release = Release(Kubelet(plane), way.values(), namespace=way.name).install()
    names = {way.means(number)[0] for number in range(way.count)}
    made = {one["metadata"]["name"] for one in release.found("services") if one["spec"]["type"] == "LoadBalancer"}
    if made != names:
        raise Failed(f"Services {sorted(made)}, expected {sorted(names)}")
    gateway = GatewayPod(NoRing(), release)
    gateway.spawn()

    def tells(addresses):
        try:
            return {row["port"]: row["advertised"] for row in gateway.topology()["nodes"]} == way.told(addresses)
        except (OSError, ValueError):
            return False

    addresses = {}
    try:
        for service, address in ((way.means(number)[0], f"203.0.113.{1 + number}") for number in way.listed):
            if service in addresses:
                continue
            addresses[service] = address
            plane.ingress(service, release.namespace, {"ip": address})
            if len(addresses) in (1, len(names)):
                until(f"{len(addresses)} of {len(names)} addresses are told", lambda: tells(addresses), 30, during=gateway.alive)
        addresses[service] = MOVED
        plane.ingress(service, release.namespace, {"ip": MOVED})
        until(f"{service} has moved", lambda: tells(addresses), 30, during=gateway.alive)
    finally:
        gateway.stop()
    return f"{len(names)} Services, {asked(plane, release, names)}; one moved, and the others stayed"


def asked(plane, release, names):
    """That each was asked for by its name, that nothing else was, and that nothing was refused."""
    records = [one for one in plane.audit(f":{release.namespace}:", release.asked)]
    told = {(one["verb"], one["objectRef"]["resource"], one["objectRef"].get("name")) for one in records}
    wanted = {(verb, "services", name) for verb in ("list", "watch") for name in names}
    refused = [one["requestURI"] for one in records if one["responseStatus"]["code"] >= 400]
    if refused or told != wanted:
        raise Failed(f"refused {refused[:3]}, asked {sorted(map(str, told ^ wanted))[:4]}")
    return f"{len(records)} requests, each for one name, none refused"


def run(report, title, plane):
    for way in WAYS:
        try:
            report.add(title, "chart", way.name, "addresses", "ok", lived(plane, way))
        except (Failed, Refused, Late, RuntimeError) as failed:
            report.add(title, "chart", way.name, "addresses", "failed", failed)
