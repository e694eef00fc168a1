"""What only a real apiserver can say: wrong types, unknown fields, selectors that do not match.

`tests/deploy/run --server` starts the rig's control plane (root, and ten minutes of Go builds when they are not cached) and has it check
everything in its strictest way; `tests/real/run kubernetes-ci` has the one that it runs anyway do the same. Objects of cert-manager and the Prometheus operator are left out: it does not know their kinds.
"""
import yaml
from rig import deploy, net
from rig.controlplane import ControlPlane

import chart
from check import EVERYTHING
from facts import addresses

FOREIGN = ("Certificate", "ServiceMonitor", "PodMonitor")
# What they are in; an apiserver that makes nothing refuses objects of a namespace that is not there.
NAMESPACES = ("db", "gateway")


def texts():
    """Name → manifests."""
    deploy = chart.DEPLOY
    yield "manifests", (deploy / "manifests" / "cqlgate.yaml").read_text()
    yield "example", (deploy / "example" / "cassandra.yaml").read_text()
    for values in sorted([*(deploy / "clouds").glob("*.yaml"), *(deploy / "operators").glob("*.yaml")]):
        yield values.name, chart.template({}, "--values", values)
    yield "1,000 ports", chart.template({"config": {"listen": "0.0.0.0:20000-20999"}})
    for number, values in enumerate(addresses.readme()):
        yield f"README.md, several addresses: {number}", chart.template(values)
    yield "IPv6 listener", chart.template({"config": {"listen": "[::]:9042-9061", "admin": "[::]:9180"}})
    objects = chart.Objects(EVERYTHING, namespace="gateway").all
    yield "every option", yaml.safe_dump_all(o for o in objects if o["kind"] not in FOREIGN)


def checked(plane):
    """(name, how many objects) one after the other; Refused has the server's own words."""
    for name, text in texts():
        said = plane.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", input=text)
        yield name, len(said.splitlines())


def accepted():
    """A failure has the server's own words."""
    held = net.lock()
    net.clear()
    net.bridges()
    plane = ControlPlane()
    try:
        plane.start()
        for name, count in deploy.checked(plane):
            print(f"ok    {name}: {count} objects", flush=True)
    finally:
        plane.stop()
        net.clear()
        held.close()
