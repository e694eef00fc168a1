"""Plays kubelet and scheduler: the StatefulSet controller makes the pods, this says where they are and how they do.

A pod stands for one of the ring's real Cassandra nodes and has its address. Every verb returns when the apiserver has
taken it; slices and DNS follow within a tenth of a second, and nothing here waits for the gateway.
"""
import datetime
import signal

from .kubeapi import namespaced
from .wait import until

WORKLOAD = """apiVersion: v1
kind: Service
metadata: {{name: {service}, namespace: {namespace}}}
spec:
  clusterIP: None
  publishNotReadyAddresses: {early}
  selector: {{app: {app}}}
  ports: [{{name: cql, port: 9042}}]
"""

STATEFUL_SET = """---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  serviceName: {service}
  replicas: {replicas}
  selector: {{matchLabels: {{app: {app}, set: {name}}}}}
  template:
    metadata: {{labels: {{app: {app}, set: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 120
      containers:
      - {{name: cassandra, image: "cassandra:5.0.9", ports: [{{name: cql, containerPort: 9042}}]}}
"""


# As cass-operator makes them (k8ssandra/cass-operator `construct_service.go`, `construct_statefulset.go`): no port is called cql, pods are made all at
# once, and a Service has those that are not ready, too.
OPERATORS_SERVICE = """apiVersion: v1
kind: Service
metadata:
  name: {cluster}-{dc}-all-pods-service
  namespace: {namespace}
  labels: {{cassandra.datastax.com/cluster: {cluster}, cassandra.datastax.com/datacenter: {dc}}}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{cassandra.datastax.com/cluster: {cluster}, cassandra.datastax.com/datacenter: {dc}}}
  ports:
  - {{name: native, port: 9042}}
  - {{name: mgmt-api, port: 8080}}
  - {{name: prometheus, port: 9103}}
"""

OPERATORS_RACK = """---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {cluster}-{dc}-{rack}-sts, namespace: {namespace}, labels: {labels}}}
spec:
  serviceName: {cluster}-{dc}-all-pods-service
  podManagementPolicy: Parallel
  replicas: {replicas}
  selector: {{matchLabels: {labels}}}
  template:
    metadata: {{labels: {labels}}}
    spec:
      terminationGracePeriodSeconds: 120
      containers:
      - name: cassandra
        image: "cassandra:5.0.9"
        ports: [{{name: native, containerPort: 9042}}, {{name: internode, containerPort: 7000}}, {{name: mgmt-api-http, containerPort: 8080}}]
"""


def operators(cluster, dc, racks, namespace="db"):
    """A datacenter as cass-operator has it: the Service of all its pods, and a StatefulSet for each rack (name → replicas), as YAML."""
    names = {"cluster": cluster, "dc": dc, "namespace": namespace}

    def labels(rack):
        return f"{{cassandra.datastax.com/cluster: {cluster}, cassandra.datastax.com/datacenter: {dc}, cassandra.datastax.com/rack: {rack}}}"
    made = (OPERATORS_RACK.format(**names, rack=rack, replicas=count, labels=labels(rack)) for rack, count in racks.items())
    return OPERATORS_SERVICE.format(**names) + "".join(made)


def workload(service="cassandra", sets=None, namespace="db", app="cassandra", early=False):
    """A headless Service and the StatefulSets (name → replicas) that it selects, as YAML."""
    sets = sets or {"cassandra": 3}
    names = {"service": service, "namespace": namespace, "app": app, "early": "true" if early else "false"}
    return WORKLOAD.format(**names) + "".join(STATEFUL_SET.format(**names, name=n, replicas=r) for n, r in sets.items())


class Kubelet:
    def __init__(self, plane, namespace="db"):
        self.plane, self.api, self.namespace = plane, plane.api, plane.namespace_made(namespace)
        # pod → the ring's node that it stands for
        self.nodes = {}

    def path(self, pod, kind="pods", group=None):
        return namespaced(self.namespace, kind, pod, group)

    def machine(self, zone):
        """A Node object of that zone; no status is asked of it."""
        name = f"machine-{zone}"
        self.api.make("/api/v1/nodes", {"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}})
        return name

    def pending(self, pod):
        """The pod as the controller has made it: alive, and nobody's yet."""
        found = self.api.get(self.path(pod))
        return found if found and "deletionTimestamp" not in found["metadata"] and not found["status"].get("podIP") else None

    def place(self, pod, address, zone="a"):
        """The controller's next pod of that name gets a machine and an address. It is not ready."""
        # Its informers wait for up to half a minute after an apiserver that was away.
        until(f"the controller makes {pod}", lambda: self.pending(pod), 120)
        target = {"kind": "Node", "name": self.machine(zone)}
        # Bound before it has an address: a pod without a machine is in no slice, and the retry takes seconds.
        self.api.ask("POST", self.path(f"{pod}/binding"), {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": target})
        self.patch(pod, False, {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "startTime": now()})

    def patch(self, pod, ready, more=None):
        conditions = [{"type": name, "status": str(value), "lastTransitionTime": now()}
                      for name, value in (("PodScheduled", True), ("Initialized", True), ("ContainersReady", ready), ("Ready", ready))]
        self.api.patch(self.path(f"{pod}/status"), {"status": {"conditions": conditions, **(more or {})}})

    def ready(self, pod, is_ready=True):
        self.patch(pod, is_ready)

    def run(self, pod, node, zone="a"):
        """The pod is `node`, which answers already: placed and ready."""
        self.place(pod, node.address, zone)
        self.nodes[pod] = node
        self.ready(pod)

    def terminate(self, pod):
        """The pod is to go: it has its deletionTimestamp, and stays until `forget`."""
        self.api.delete(self.path(pod))

    def terminating(self, pod):
        found = self.api.get(self.path(pod))
        return found and "deletionTimestamp" in found["metadata"]

    def forget(self, pod):
        """Kubelet's last act: the object is gone. The controller makes the next one where it should be."""
        self.api.delete(self.path(pod), seconds=0)

    def end(self, pod, how=signal.SIGTERM):
        """The pod is terminating: its node stops, then the object goes."""
        self.nodes[pod].stop(how)
        self.ready(pod, False)
        self.forget(pod)

    def begin(self, pod, node, address=None, zone="a"):
        """The stopped `node` (with its data, at `address`) as the controller's next pod of that name; ready when it answers."""
        if address:
            node.move(address)
        self.place(pod, node.address, zone)
        self.nodes[pod] = node
        node.start()
        node.wait_open()
        self.ready(pod)

    def replace(self, pod, node, new_address, how=signal.SIGTERM, zone="a"):
        """Deleted, and made again elsewhere: the same name and data, another address."""
        self.terminate(pod)
        self.end(pod, how)
        self.begin(pod, node, new_address, zone)

    def scale(self, name, count):
        """Returns at once: what is new is to be placed, what is too much is terminating."""
        self.api.patch(self.path(name, "statefulsets", "apps/v1"), {"spec": {"replicas": count}})

    def rolling_restart(self, name, count, address=None, each=None):
        """Every pod of StatefulSet `name` from the highest ordinal down; `address(node)` is where its next pod is (None: where it was),
        `each(pod)` is told of each pod that is back."""
        self.plane.kubectl("-n", self.namespace, "rollout", "restart", f"statefulset/{name}")
        for ordinal in reversed(range(count)):
            pod = f"{name}-{ordinal}"
            until(f"the controller ends {pod}", lambda p=pod: self.terminating(p), 30)
            self.end(pod)
            self.begin(pod, self.nodes[pod], address(self.nodes[pod]) if address else None)
            if each:
                each(pod)

    def remove(self, name):
        """The StatefulSet and its pods, whose nodes go on."""
        self.api.delete(self.path(name, "statefulsets", "apps/v1"))
        until(f"StatefulSet {name} is gone", lambda: self.api.get(self.path(name, "statefulsets", "apps/v1")) is None, 30)
        for pod in [p for p in self.nodes if p.rsplit("-", 1)[0] == name]:
            self.forget(pod)
            del self.nodes[pod]

    def endpoints(self, service):
        """pod → (address, ready, serving, terminating), from all of the Service's slices."""
        slices = self.api.ask("GET", self.path("", "endpointslices", "discovery.k8s.io/v1")
                              + f"?labelSelector=kubernetes.io/service-name%3D{service}")
        found = {}
        for part in slices["items"]:
            for endpoint in part.get("endpoints") or ():
                says = endpoint.get("conditions", {})
                found[endpoint["targetRef"]["name"]] = (endpoint["addresses"][0], says.get("ready"), says.get("serving"), says.get("terminating"))
        return found


def now():
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
