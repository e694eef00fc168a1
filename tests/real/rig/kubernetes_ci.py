"""The share of Kubernetes that every change is checked with: the whole mission once, then what tells most of what can happen to
pods and to the API, and in the end who asked for what.
"""
from . import api_faults, drivers, kubernetes_life
from .api_faults import ApiFaults
from .kubernetes_suite import NAMES, Cluster, Stand

STEPS = {"replaced": ApiFaults.replaced, "maps": ApiFaults.maps, "expired": ApiFaults.expired, "frozen": ApiFaults.frozen,
         "end": kubernetes_life.KubernetesLife.end}


def run(report, names=NAMES, steps=tuple(STEPS)):
    """CA1 to CA4 of each driver, the steps, and the rights: the Role against what was asked, with no refusal."""
    drivers.prepare(names)
    cluster = Cluster()
    gateway = cluster.gateway()
    gateway.spawn()
    cluster.place(f"cassandra-{ordinal}" for ordinal in range(3))
    stand = Stand(report, cluster, gateway.wait())
    title = "kubernetes-ci"
    for name in names:
        stand.cell(title, name)
    life = ApiFaults(cluster.release, cluster.ring, stand.gateway, stand.programs(title, names), stand.contacts, stand.recorder(title))
    api_faults.live(life, {name: STEPS[name] for name in steps})
    stand.gateway.stop()
    cluster.stop()
