"""The whole mission: a real control plane and CoreDNS, the chart, the gateway with nothing but its ServiceAccount, real
Cassandra nodes as a StatefulSet's pods, and drivers outside.
"""
from . import drivers, kubernetes_life, kubetools, net
from .controlplane import ControlPlane
from .deploy import Release
from .gateway_pod import GatewayPod
from .kubelet import Kubelet, operators, workload
from .suites import Suite, ring_with_schema

NAMES = ("java", "python")
RACKS = {"cassandra-rack-a": 2, "cassandra-rack-b": 1}
RANGES = [{"name": "cassandra-rack-a", "ports": "9042-9044"}, {"name": "cassandra-rack-b", "ports": "9045-9047"}]


def values(service="cassandra", **more):
    """What a user writes; a short drain, because nothing here balances load. The image is never pulled."""
    return {"image": {"repository": "registry.example.com/cqlgate"}, "config": {"discovery": {"kubernetes": {"service": service, "namespace": "db", **more}}, "drain": {"delay": "1s", "spread": "1s"}}}


class Cluster:
    """The control plane, a ring of three, StatefulSet `cassandra` whose pods are not placed yet, and the release with its address.
    `first(plane)` while nothing is made yet."""

    def __init__(self, first=lambda plane: None):
        kubetools.prepare()
        self.plane = ControlPlane().start()
        first(self.plane)
        self.kubelet = Kubelet(self.plane)
        self.plane.apply(workload())
        self.ring = ring_with_schema()
        self.release = Release(self.kubelet, values()).install()
        self.release.ingress({"ip": net.GATEWAY})

    def gateway(self, number=1):
        return GatewayPod(self.ring, self.release, number)

    def place(self, pods):
        """The pods are the ring's nodes, in that order."""
        for pod, node in zip(pods, self.ring.nodes):
            self.kubelet.run(pod, node, zone=f"r{node.number}")

    def stop(self):
        self.ring.kill()
        self.plane.stop()


class Stand(Suite):
    def __init__(self, report, cluster, gateway):
        super().__init__(report, cluster.ring, gateway)
        self.cluster = cluster

    def live(self, title, names, steps):
        for name in names:
            self.cell(title, name)
        life = kubernetes_life.KubernetesLife(self.cluster.release, self.ring, self.gateway, self.programs(title, names),
                                              self.contacts, self.recorder(title))
        kubernetes_life.live(life, steps)


def racks(report, cluster, names):
    """The same nodes as two StatefulSets behind one Service, which publishes addresses that are not ready: first with a range of ports
    each, then with the ledger alone."""
    cluster.kubelet.remove("cassandra")
    cluster.plane.apply(workload("racks", RACKS, app="racks", early=True))
    cluster.place(f"{name}-{ordinal}" for name, count in RACKS.items() for ordinal in range(count))
    for title, more in (("ranges", {"statefulSets": RANGES}), ("ledger", {"ledger": "cqlgate-ports"})):
        cluster.release.change(values("racks", **more))
        stand = Stand(report, cluster, cluster.gateway().start())
        stand.live(title, names, ("replaced", "maps", "end"))
        stand.gateway.stop()


def k8ssandra(report, cluster, names):
    """The same nodes as cass-operator has them. A rack is restarted at once."""
    for name in [pod.rsplit("-", 1)[0] for pod in cluster.kubelet.nodes if pod.endswith("-0")]:
        cluster.kubelet.remove(name)
    racks = {"r1": 2, "r2": 1}
    cluster.plane.apply(operators("demo", "dc1", racks))
    cluster.place(f"demo-dc1-{rack}-sts-{ordinal}" for rack, count in racks.items() for ordinal in range(count))
    cluster.release.change(values("demo-dc1-all-pods-service", ledger="cqlgate-ports"))
    stand = Stand(report, cluster, cluster.gateway().start())
    stand.live("k8ssandra", names, ("rack", "replaced", "maps", "end"))
    stand.gateway.stop()


def run(report, names=NAMES, steps=(*kubernetes_life.STEPS, "racks", "k8ssandra")):
    """CA1 to CA4, then the cluster's life."""
    drivers.prepare(names)
    report.details = True
    cluster = Cluster()
    # It starts before there is any pod: what it says then is compared with one that starts late.
    gateway = cluster.gateway()
    gateway.spawn()
    cluster.place(f"cassandra-{ordinal}" for ordinal in range(3))
    stand = Stand(report, cluster, gateway.wait())
    stand.live("kubernetes", names, [step for step in steps if step not in ("rack", "racks", "k8ssandra")])
    gateway.stop()
    if "racks" in steps:
        racks(report, cluster, names)
    if "k8ssandra" in steps:
        k8ssandra(report, cluster, names)
    cluster.stop()
