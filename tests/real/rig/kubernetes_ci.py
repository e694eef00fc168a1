"""The share of Kubernetes that every change is checked with: every manifest by the apiserver, several Services with an address each, the whole
mission once, then what tells most of what can happen to pods and to the API, and at the end who asked for what in all of it.
"""
from . import api_faults, deploy, drivers, kubernetes_addresses
from .api_faults import ApiFaults
from .kubeapi import Refused
from .kubernetes_suite import NAMES, Cluster, Stand

STEPS = {"replaced": ApiFaults.replaced, "maps": ApiFaults.maps, "expired": ApiFaults.expired, "frozen": ApiFaults.frozen, "end": ApiFaults.end}


def manifests(report, title, plane):
    """Every manifest of deploy/. The apiserver makes nothing of it, and must have nothing of these names yet."""
    try:
        report.add(title, "chart", "manifests", "manifests", "ok", ", ".join(f"{name} {count}" for name, count in deploy.checked(plane)))
    except Refused as refused:
        report.add(title, "chart", "manifests", "manifests", "failed", refused)


def run(report, names=NAMES, steps=("manifests", "addresses", *STEPS)):
    """CA1 to CA4 of each driver, and the steps."""
    drivers.prepare(names)
    title = "kubernetes-ci"

    def first(plane):
        if "manifests" in steps:
            manifests(report, title, plane)
        if "addresses" in steps:
            kubernetes_addresses.run(report, title, plane)

    cluster = Cluster(first)
    gateway = cluster.gateway()
    gateway.spawn()
    cluster.place(f"cassandra-{ordinal}" for ordinal in range(3))
    stand = Stand(report, cluster, gateway.wait())
    for name in names:
        stand.cell(title, name)
    life = ApiFaults(cluster.release, cluster.ring, stand.gateway, stand.programs(title, names), stand.contacts, stand.recorder(title))
    api_faults.live(life, {name: STEPS[name] for name in steps if name in STEPS})
    stand.gateway.stop()
    cluster.stop()
