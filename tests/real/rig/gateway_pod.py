"""The gateway as Kubernetes runs it: the chart's configuration, the cluster's DNS, the three files of its ServiceAccount,
and the two variables that every container has. No kubeconfig, no home, no other credential.
"""
import os

from .gateway import Gateway
from .secrets import SEARCHED

# `ip netns exec` gives the process mounts of its own: what is mounted here is seen by nobody else.
MOUNT = """mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io &&
ln -s "$0" /run/secrets/kubernetes.io/serviceaccount && exec "$@" """


class GatewayPod(Gateway):
    """One replica of `release` (see deploy.py); `number` 2 and more stand beside the first."""

    def __init__(self, ring, release, number=1):
        self.release, self.plane, self.kubelet = release, release.plane, release.kubelet
        super().__init__(ring, discovery="kubernetes", number=number)
        self.account = self.home / "serviceaccount"
        self.account.mkdir()
        # Read once: a container starts again without the API.
        self.variables = release.environment(f"{release.name}-{number}")
        self.renew()
        self.plane.resolver(self.namespace, release.namespace)

    def renew(self, seconds=3600, ca=None):
        """The ServiceAccount's files, written anew as kubelet does it: by rename. `ca`: another file than the apiserver's own."""
        files = {"token": self.plane.token(self.release.account(), self.release.namespace, seconds),
                 "ca.crt": (ca or self.plane.home / "ca.crt").read_text(), "namespace": self.release.namespace}
        for name, text in files.items():
            self.write(name, text)

    def write(self, name, text):
        if name == "token":
            SEARCHED.tokens.add(text)
        fresh = self.account / f".{name}"
        fresh.write_text(text)
        fresh.rename(self.account / name)

    def yaml(self, _credentials):
        return self.release.configuration(self.home)

    def command(self):
        return ["sh", "-c", MOUNT, str(self.account), *super().command()]

    def environment(self):
        return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBERNETES_SERVICE_HOST": self.plane.address,
                "KUBERNETES_SERVICE_PORT": "6443", **self.variables}

    def rows(self):
        """By the pod's name: the kubelet knows which of the ring's nodes it is, and where."""
        found = {(row["name"], row["address"]): row for row in self.topology()["nodes"]}
        pods = {node.number: pod for pod, node in self.kubelet.nodes.items()}
        return [(node, found.get((pods.get(node.number), f"{node.address}:9042"))) for node in self.ring.nodes]

    def ports(self):
        """pod → port, of every pod that there is: one that is gone keeps its port for a while, where it was seen."""
        return {row["name"]: row["port"] for row in self.topology()["nodes"] if row["state"] != "gone"}
