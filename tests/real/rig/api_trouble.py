"""How the Kubernetes API is brought into trouble, and out of it again: each fault is the real one, of the real apiserver, its
authorizer, its scheduler of requests, or of what is between it and the gateway.
"""
import contextlib
import json
import socket
import ssl
import subprocess

from . import certificates, net
from .kubeapi import Api, Refused, namespaced
from .wait import until

RBAC = "rbac.authorization.k8s.io/v1"
FLOWS = "/apis/flowcontrol.apiserver.k8s.io/v1"


def write(plane):
    """Something nobody asked for: the history goes on."""
    path = namespaced("default", "configmaps")
    for _ in range(3):
        plane.api.delete(f"{path}/history")
        plane.api.make(path, {"metadata": {"name": "history"}})


def ask_etcd(plane, path, body):
    """By its JSON gateway."""
    text = ["ip", "netns", "exec", plane.namespace, "curl", "-sf", f"http://127.0.0.1:2379/v3/{path}", "-d", json.dumps(body)]
    return json.loads(subprocess.run(text, check=True, capture_output=True, text=True).stdout)


def revision(plane):
    """How many changes etcd has seen: an object's resourceVersion is that of its own last one."""
    return int(ask_etcd(plane, "maintenance/status", {})["header"]["revision"])


def compact(plane):
    """etcd forgets all of the past."""
    ask_etcd(plane, "kv/compaction", {"revision": revision(plane), "physical": True})


def cut(gateway):
    """Resets every connection of the gateway to the apiserver."""
    subprocess.run(["ip", "netns", "exec", gateway.namespace, "ss", "-K", "dst", gateway.plane.address, "dport", "=", "6443"],
                   capture_output=True, check=False)


@contextlib.contextmanager
def unplugged(plane):
    """The control plane's leg on the bridge forwards nothing; it stays up."""
    leg = net.outer(plane.namespace, "eth0")
    subprocess.run(["bridge", "link", "set", "dev", leg, "state", "0"], check=True)
    try:
        yield
    finally:
        subprocess.run(["bridge", "link", "set", "dev", leg, "state", "3"], check=True)


@contextlib.contextmanager
def silence(gateway):
    """Packets between the gateway and the apiserver vanish, both ways; what is given says how many have."""
    there = gateway.plane.address
    net.nft(gateway.namespace, f"""table inet silence {{
        counter lost {{ }}
        chain in {{ type filter hook input priority 0; ip saddr {there} tcp sport 6443 counter name lost drop; }}
        chain out {{ type filter hook postrouting priority 0; ip daddr {there} tcp dport 6443 counter name lost drop; }}
    }}""")

    def lost():
        found = json.loads(net.nft(gateway.namespace, "-j", "list counters"))["nftables"]
        return next(item["counter"]["packets"] for item in found if "counter" in item and item["counter"]["name"] == "lost")
    try:
        yield lost
    finally:
        net.nft(gateway.namespace, "delete table inet silence")


def token(gateway):
    return (gateway.account / "token").read_text()


def ready(plane):
    try:
        return plane.ready()
    except OSError:
        return None


def answer(release, token):
    """The status code of a list that the gateway may make, asked with `token`."""
    api = Api(release.plane.address, release.plane.home / "ca.crt", token)
    try:
        api.ask("GET", namespaced(release.kubelet.namespace, "endpointslices", group="discovery.k8s.io/v1"))
    except Refused as refused:
        return refused.code
    return 200


@contextlib.contextmanager
def jail(release):
    """The gateway's requests are of a priority level with no seats, whose one request at a time is held by somebody else."""
    plane, space = release.plane, release.namespace
    accounts = namespaced(space, "serviceaccounts")
    plane.api.make(accounts, {"metadata": {"name": "holder"}})
    plane.api.make(f"/apis/{RBAC}/clusterrolebindings", {
        "metadata": {"name": "holder"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "holder", "namespace": space}]})
    plane.api.make(f"{FLOWS}/prioritylevelconfigurations", {"metadata": {"name": "jail"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}}})
    subjects = [{"kind": "ServiceAccount", "serviceAccount": {"name": name, "namespace": space}} for name in ("holder", release.account())]
    plane.api.make(f"{FLOWS}/flowschemas", {"metadata": {"name": "jail"}, "spec": {
        "matchingPrecedence": 2, "priorityLevelConfiguration": {"name": "jail"}, "rules": [{"subjects": subjects, "resourceRules": [
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"], "namespaces": ["*"], "clusterScope": True}]}]}})
    held, token, mine = [], plane.token("holder", space), plane.token(release.account(), space)

    def refused():
        # The level takes effect some time after it is made: a request that came too early is in another one.
        if held:
            held.pop().close()
        held.append(hold(plane, token))
        return answer(release, mine) == 429
    try:
        until("the level has no seat", refused, 30, every=0.5)
        yield
    finally:
        for one in held:
            one.close()
        plane.api.delete(f"{FLOWS}/flowschemas/jail")
        plane.api.delete(f"{FLOWS}/prioritylevelconfigurations/jail")


def hold(plane, token):
    """A request that never ends: its body stays away. Closing it ends it."""
    context = ssl.create_default_context(cafile=str(plane.home / "ca.crt"))
    plain = socket.create_connection((plane.address, 6443), timeout=5)
    held = context.wrap_socket(plain, server_hostname=plane.address)
    held.sendall(f"POST {namespaced('default', 'configmaps')} HTTP/1.1\r\nHost: {plane.address}\r\nAuthorization: Bearer {token}\r\n"
                 "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{".encode())
    return held


def again(found):
    """An object as it can be made anew."""
    kept = {key: found["metadata"][key] for key in ("name", "namespace", "labels", "annotations") if key in found["metadata"]}
    return {**{key: value for key, value in found.items() if key != "status"}, "metadata": kept}


@contextlib.contextmanager
def without(plane, path):
    """The object at `path` is deleted, and made again as it was."""
    found = plane.api.get(path)
    plane.api.delete(path)
    try:
        yield
    finally:
        plane.api.make(path.rsplit("/", 1)[0], again(found))


def ours(release, namespace, kind):
    """The one Role or RoleBinding of the release in that namespace."""
    found = release.plane.api.ask("GET", namespaced(namespace, kind, group=RBAC))["items"]
    return next(one for one in found if one["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == release.name)


@contextlib.contextmanager
def without_binding(release, namespace):
    found = ours(release, namespace, "rolebindings")
    with without(release.plane, namespaced(namespace, "rolebindings", found["metadata"]["name"], RBAC)):
        mine = release.plane.token(release.account(), release.namespace)
        until("it is forbidden", lambda: answer(release, mine) == 403, 10)
        yield


@contextlib.contextmanager
def without_rule(release, namespace, resource):
    """The release's Role says nothing of `resource` for the time being."""
    role = ours(release, namespace, "roles")
    path = namespaced(namespace, "roles", role["metadata"]["name"], RBAC)
    release.plane.api.patch(path, {"rules": [rule for rule in role["rules"] if resource not in rule["resources"]]})
    try:
        yield
    finally:
        release.plane.api.patch(path, {"rules": role["rules"]})


def new_account(release):
    """The gateway's ServiceAccount is another one of the same name: tokens of the former are void."""
    with without(release.plane, namespaced(release.namespace, "serviceaccounts", release.account())):
        pass


def second_authority(plane):
    """Makes another CA and a certificate of the apiserver by it, not used yet; the CA as text."""
    place = certificates.control_plane(plane.home / "later", plane.address)
    return (place / "ca.crt").read_text()


def change_authority(plane, bundle):
    """The stopped apiserver starts with the certificate of the second CA; everybody else in the rig trusts `bundle`."""
    for name in ("api.crt", "api.key"):
        (plane.home / name).write_text((plane.home / "later" / name).read_text())
    (plane.home / "ca.crt").write_text(bundle)
    plane.start_apiserver()
    for name in ("kube-controller-manager", "coredns"):
        plane.again(name)


def names_of_slices(kubelet):
    found = kubelet.api.ask("GET", kubelet.path("", "endpointslices", "discovery.k8s.io/v1"))["items"]
    return {one["metadata"]["name"] for one in found}
