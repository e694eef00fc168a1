"""The chart as a cluster gets it: rendered by Helm, checked and applied by the real apiserver, read back from there."""
import json
import sys

from . import cache, helm
from .kubeapi import namespaced

CHART = cache.CHECKOUT / "deploy/helm/cqlgate"


def importable():
    """Modules of tests/deploy can be imported from now on, and what they need."""
    site = cache.python("deploy-python", ("PyYAML==6.0.3",)).parent.parent
    sys.path.extend([str(cache.CHECKOUT / "tests/deploy"), *map(str, site.glob("lib/python*/site-packages"))])


def checked(plane):
    """(name, how many objects) of everything in deploy/: the apiserver checks it in its strictest way, and makes nothing."""
    importable()
    import server

    for namespace in server.NAMESPACES:
        plane.namespace_made(namespace)
    return server.checked(plane)


class Release:
    """`values`: what a user would write into a values file, as a dict."""

    def __init__(self, kubelet, values, namespace="cqlgate", name="cqlgate"):
        self.kubelet, self.plane, self.name = kubelet, kubelet.plane, name
        self.namespace = self.plane.namespace_made(namespace)
        self.values = values

    def render(self):
        place = self.plane.home / f"{self.name}-values.json"
        place.write_text(json.dumps(self.values))
        return cache.run(helm.program(), "template", self.name, CHART, "--namespace", self.namespace, "--values", place)

    def install(self):
        self.plane.apply(self.render())
        # What was asked before was asked by other rules.
        self.asked = len(self.plane.audit())
        return self

    def change(self, values):
        """Other values, as `helm upgrade` would bring them."""
        self.values = values
        return self.install()

    def found(self, kind, group=None):
        """The release's objects of a kind."""
        all_of = self.plane.api.ask("GET", namespaced(self.namespace, kind, group=group))["items"]
        return [one for one in all_of if one["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == self.name]

    def deployment(self):
        return self.found("deployments", "apps/v1")[0]

    def account(self):
        return self.deployment()["spec"]["template"]["spec"]["serviceAccountName"]

    def service(self):
        """The name of the Service of type LoadBalancer."""
        return next(one["metadata"]["name"] for one in self.found("services") if one["spec"]["type"] == "LoadBalancer")

    def ingress(self, *entries):
        self.plane.ingress(self.service(), self.namespace, *entries)

    def configuration(self, home):
        """The text of cqlgate.yaml; directories of the image are directories below `home`."""
        text = next(one["data"]["cqlgate.yaml"] for one in self.found("configmaps") if "cqlgate.yaml" in one.get("data", {}))
        return text.replace("/var/lib/cqlgate", str(home))

    def environment(self, pod):
        """The container's own variables, with `pod` for its name."""
        fields = {"metadata.name": pod, "metadata.namespace": self.namespace}
        container = self.deployment()["spec"]["template"]["spec"]["containers"][0]
        return {one["name"]: one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
                for one in container.get("env", ()) if "value" in one or one["valueFrom"].get("fieldRef", {}).get("fieldPath") in fields}
