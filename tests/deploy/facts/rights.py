"""Least privilege: what the Roles give is what the gateway asks, and what deploy/README.md says."""
import re

import chart
from chart import Objects, defaults
from check import EVERYTHING, check, config, equal, kubernetes


NODES = [("db", "", "pods", "", "list"), ("db", "", "pods", "", "watch"),
         ("db", "", "services", "cassandra", "list"), ("db", "", "services", "cassandra", "watch"),
         ("db", "discovery.k8s.io", "endpointslices", "", "list"), ("db", "discovery.k8s.io", "endpointslices", "", "watch")]
OWN = [("gateway", "", "services", "cqlgate", verb) for verb in ("list", "watch")]
LEDGER = [("gateway", "", "configmaps", "cqlgate-ports", verb) for verb in ("get", "update")] + [
    ("gateway", "", "configmaps", "", "create")]


def rights(**kubernetes_keys):
    return Objects(kubernetes(namespace="db", **kubernetes_keys), namespace="gateway").rights()


@check
def roles_give_what_the_gateway_asks_and_nothing_else():
    equal(rights(), sorted(NODES + OWN + LEDGER))
    ranges = [{"name": "rack-a", "ports": "9042-9051"}, {"name": "rack-b", "ports": "9052-9061"}]
    equal(rights(ledger="cqlgate-ports", statefulSets=ranges), sorted(NODES + OWN), "ranges need no ledger")
    beforehand = kubernetes(namespace="db", ledger="cqlgate-ports") | {"rbac": {"createLedger": False}}
    equal(Objects(beforehand, namespace="gateway").rights(), sorted(NODES + OWN + LEDGER[:-1]))
    scylla = [tuple(x.replace("cassandra", "scylla") for x in r) for r in NODES]
    equal(rights(service="scylla"), sorted(scylla + OWN + LEDGER))


@check
def rights_on_pods_can_be_left_out():
    values = kubernetes(namespace="db") | {"rbac": {"watchPods": False}}
    equal(Objects(values, namespace="gateway").rights(), sorted([r for r in NODES if r[2] != "pods"] + OWN + LEDGER))
    equal(Objects(values).config()["discovery"]["kubernetes"]["watch_pods"], False)


@check
def without_the_api_there_are_no_rights_and_no_token():
    values = config(advertise="203.0.113.10", discovery={"nodes": [{"name": "a", "address": "h"}]})
    found = Objects(values)
    equal(found.rights(), [])
    equal(found.pod()["automountServiceAccountToken"], False)
    equal(defaults().pod()["automountServiceAccountToken"], True)
    equal(Objects(config(discovery={"nodes": [{"name": "a", "address": "h"}]}), namespace="gateway").rights(), OWN)


@check
def bindings_bind_the_gateways_account_to_each_role():
    for values, namespace in ((kubernetes(namespace="db"), "gateway"), ({}, "db"), (EVERYTHING, "gateway")):
        found = Objects(values, namespace=namespace)
        roles = {(o["metadata"]["namespace"], o["metadata"]["name"]) for o in found.all if o["kind"] == "Role"}
        bound = {(o["metadata"]["namespace"], o["roleRef"]["name"]) for o in found.all if o["kind"] == "RoleBinding"}
        equal(bound, roles)
        account = found.pod()["serviceAccountName"]
        for binding in (o for o in found.all if o["kind"] == "RoleBinding"):
            equal(binding["subjects"], [{"kind": "ServiceAccount", "name": account, "namespace": namespace}])
        assert not found.has("ClusterRole")


@check
def readme_lists_exactly_these_rights():
    """The rows of the table in deploy/README.md, against the Roles without ranges."""
    rows = re.findall(r"^\| `([a-z, ]+)` \| `([a-z0-9.]*/?[a-z]+)`([^|]*)\| (Cassandra's|the release's) \|",
                      (chart.DEPLOY / "README.md").read_text(), re.M)
    listed = set()
    for verbs, resource, names, where in rows:
        group, _, kind = resource.rpartition("/")
        name = re.search(r"`([a-z-]+)`", names)
        for verb in verbs.split(", "):
            listed.add(({"Cassandra's": "db", "the release's": "gateway"}[where], group, kind, name[1] if name else "", verb))
    equal(sorted(listed), sorted(NODES + OWN + LEDGER))


@check
def nothing_is_asked_of_the_api_where_names_tell_who_is_there():
    found = Objects(config(advertise="203.0.113.10", discovery={"dns": "cassandra.db.svc.cluster.local"}))
    assert not found.has("Role") and not found.has("RoleBinding")
