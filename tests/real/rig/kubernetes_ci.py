"""The share of Kubernetes that every change is checked with: the whole mission once, then what tells most of what can happen to
pods and to the API, and who asked for what.
"""
from . import api_faults, drivers
from .api_faults import ApiFaults
from .kubernetes_suite import NAMES, Cluster, Stand

# Who asked for what comes before the faults: an apiserver that has just started refuses everyone for a moment.
STEPS = {"replaced": ApiFaults.replaced, "maps": ApiFaults.maps, "asked": ApiFaults.asked, "expired": ApiFaults.expired,
         "frozen": ApiFaults.frozen, "end": ApiFaults.last}


def run(report, names=NAMES, steps=tuple(STEPS)):
    """CA1 to CA4 of each driver, and the steps."""
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
