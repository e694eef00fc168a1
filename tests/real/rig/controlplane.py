"""A Kubernetes control plane: etcd, kube-apiserver, kube-controller-manager and CoreDNS in one namespace on the nodes' bridge.

No scheduler and no kubelet: what binds pods and says how they are is `kubelet.py`, so that a test decides both. No
kube-proxy: ClusterIPs lead nowhere, pods' addresses do. What every ServiceAccount asks of the apiserver is in its audit log.
"""
import json
import os
import shutil
import signal
import subprocess
import urllib.request

from . import cache, certificates, kubetools, net
from .kubeapi import Api, Refused, namespaced
from .wait import until

CONTROLLERS = ",".join(f"{name}-controller" for name in (
    "statefulset", "deployment", "replicaset", "endpointslice", "serviceaccount", "namespace", "garbage-collector",
    "disruption", "root-ca-certificate-publisher"))

AUDIT = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: ["system:serviceaccounts"]}
- {level: None}
"""

KUBECONFIG = """apiVersion: v1
kind: Config
clusters: [{{name: rig, cluster: {{server: "https://{address}:6443", certificate-authority: {home}/ca.crt}}}}]
users: [{{name: admin, user: {{token: {token}}}}}]
contexts: [{{name: rig, context: {{cluster: rig, user: admin}}}}]
current-context: rig
"""

COREFILE = """.:53 {{
    bind {address}
    errors
    ready {address}:8181
    hosts {home}/hosts {zone} {{
        ttl 1
        reload 200ms
    }}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {home}/admin.kubeconfig rig
        ttl {ttl}
        pods insecure
        fallthrough in-addr.arpa
    }}
}}
"""


class ControlPlane:
    # Names outside the cluster, as a cloud gives them to a load balancer: `host(name, address)`.
    ZONE = "lb.rig"
    TOKEN = "administrator"

    def __init__(self, ttl=5):
        self.home = cache.RUN / "kubernetes"
        shutil.rmtree(self.home, ignore_errors=True)
        self.programs, self.dns = kubetools.realkube(), kubetools.coredns()
        self.address = net.CONTROL_PLANE
        self.namespace = net.namespace("k8s")
        net.attach(self.namespace, net.NODE_BRIDGE, f"{self.address}/24", default=f"{net.NODES}.1")
        certificates.control_plane(self.home, self.address)
        fill = {"address": self.address, "home": self.home, "token": self.TOKEN, "zone": self.ZONE, "ttl": ttl}
        for name, text in (("audit.yaml", AUDIT), ("admin.kubeconfig", KUBECONFIG.format(**fill)), ("Corefile", COREFILE.format(**fill)),
                           ("tokens.csv", f'{self.TOKEN},admin,admin,"system:masters"\n'), ("hosts", "")):
            (self.home / name).write_text(text)
        self.api = Api(self.address, self.home / "ca.crt", self.TOKEN)
        self.processes, self.commands, self.hosts = {}, {}, {}
        # (first, last) of the audit log's records of each of the apiserver's starts: until it is ready it forbids everything.
        self.starts = []

    def spawn(self, name, *command):
        self.commands[name] = command
        with open(self.home / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *map(str, command)], cwd=self.home, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True, env={**os.environ, "GOMAXPROCS": "2"})

    def alive(self):
        for name, process in self.processes.items():
            if process.poll() is not None:
                tail = (self.home / f"{name}.log").read_text(errors="replace").splitlines()[-8:]
                raise RuntimeError(f"{name} ended with {process.returncode}:\n" + "\n".join(tail))

    def start(self):
        self.start_etcd()
        self.start_apiserver()
        self.spawn("kube-controller-manager", self.programs / "kube-controller-manager", "--kubeconfig=admin.kubeconfig",
                   "--leader-elect=false", "--use-service-account-credentials=false", f"--controllers={CONTROLLERS}", "--root-ca-file=ca.crt",
                   "--service-account-private-key-file=sa.key", "--max-endpoints-per-slice=2", "--bind-address=127.0.0.1")
        self.spawn("coredns", self.dns, "-conf", "Corefile")
        # Before it is there no pod can be made.
        until("the default ServiceAccount", lambda: self.api.get(namespaced("default", "serviceaccounts", "default")), 30, during=self.alive)
        until("CoreDNS", self.dns_ready, 30, during=self.alive)
        return self

    def start_etcd(self):
        self.spawn("etcd", self.programs / "etcd", "--data-dir=etcd", "--unsafe-no-fsync", "--log-level=warn")

    def back_up(self):
        """Etcd's files as they would be found after its death at this moment: it is stopped while they are copied."""
        self.freeze("etcd")
        try:
            shutil.rmtree(self.home / "backup", ignore_errors=True)
            shutil.copytree(self.home / "etcd", self.home / "backup")
        finally:
            self.thaw("etcd")

    def restore(self):
        """As an administrator restores a backup: apiserver and etcd are stopped, etcd's files replaced, both started, and then the
        controllers anew, because their watches are silent from now on. Revisions are not bumped, which is what makes them so."""
        self.kill_apiserver()
        self.processes["etcd"].kill()
        self.processes.pop("etcd").wait(timeout=30)
        shutil.rmtree(self.home / "etcd")
        shutil.copytree(self.home / "backup", self.home / "etcd")
        self.start_etcd()
        self.start_apiserver()
        self.again("kube-controller-manager")

    def start_apiserver(self, *more):
        """`more`: flags beside the usual ones. Returns when it is ready."""
        before = len(self.audit())
        self.spawn("kube-apiserver", self.programs / "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379",
                   "--bind-address=0.0.0.0", "--secure-port=6443", f"--advertise-address={self.address}", f"--external-hostname={self.address}",
                   "--tls-cert-file=api.crt", "--tls-private-key-file=api.key", "--client-ca-file=ca.crt", "--token-auth-file=tokens.csv",
                   "--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                   "--service-account-signing-key-file=sa.key", "--service-account-key-file=sa.pub",
                   f"--service-cluster-ip-range={net.SERVICES}", "--endpoint-reconciler-type=none", "--etcd-compaction-interval=0",
                   "--allow-privileged", "--audit-policy-file=audit.yaml", "--audit-log-path=audit.json", *more)
        until("the apiserver is ready", self.ready, 60, during=self.alive)
        self.starts.append((before, len(self.audit())))

    def kill_apiserver(self):
        """SIGKILL, and waited for: a dying one still holds its port."""
        self.processes["kube-apiserver"].kill()
        self.processes.pop("kube-apiserver").wait(timeout=30)

    def freeze(self, name="kube-apiserver"):
        self.processes[name].send_signal(signal.SIGSTOP)

    def thaw(self, name="kube-apiserver"):
        self.processes[name].send_signal(signal.SIGCONT)

    def again(self, name):
        """Kills one of the programs and starts it as it was: it reads its files anew."""
        self.processes[name].kill()
        self.processes[name].wait(timeout=30)
        self.spawn(name, *self.commands[name])

    def ready(self):
        try:
            return self.api.ask("GET", "/readyz", timeout=2)
        except Refused:
            return None

    def dns_ready(self):
        with urllib.request.urlopen(f"http://{self.address}:8181/ready", timeout=2) as answer:
            return answer.status == 200

    def stop(self):
        for name in list(self.processes):
            self.processes[name].kill()
            self.processes.pop(name).wait(timeout=30)

    def kubectl(self, *arguments, input=None, check=True):
        """Its standard output; Refused, with what it printed, when it fails and `check` is set."""
        done = subprocess.run(["ip", "netns", "exec", self.namespace, str(self.programs / "kubectl"),
                               f"--kubeconfig={self.home / 'admin.kubeconfig'}", *map(str, arguments)],
                              input=input, capture_output=True, text=True, timeout=60)
        if check and done.returncode != 0:
            raise Refused(done.returncode, f"kubectl {' '.join(map(str, arguments))}: {done.stderr or done.stdout}")
        return done.stdout

    def apply(self, text):
        """Checked by the server in its strictest way before anything is changed."""
        self.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", input=text)
        return self.kubectl("apply", "--server-side", "-f", "-", input=text)

    def namespace_made(self, name):
        """A namespace in which pods can be made."""
        self.api.make("/api/v1/namespaces", {"metadata": {"name": name}})
        until(f"the default ServiceAccount of {name}", lambda: self.api.get(namespaced(name, "serviceaccounts", "default")), 30)
        return name

    def token(self, account, namespace, seconds=3600):
        """At least 600 seconds: the apiserver gives no shorter one."""
        path = namespaced(namespace, "serviceaccounts", f"{account}/token")
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": seconds}}
        return self.api.ask("POST", path, request)["status"]["token"]

    def audit(self, user="", since=0):
        """What ServiceAccounts (whose name contains `user`) have asked, but for the first `since` records of all: each has
        user.username, verb, requestURI, objectRef, responseStatus.code."""
        log = self.home / "audit.json"
        lines = log.read_text().splitlines() if log.exists() else []
        # The last line may be half written.
        records = [json.loads(line) for line in lines if line.endswith("}")]
        return [record for record in records[since:] if user in record["user"]["username"]]

    def ingress(self, service, namespace, *entries):
        """What a cloud would write: `{"ip": …}` or `{"hostname": …}`; none takes the address back."""
        self.api.patch(namespaced(namespace, "services", f"{service}/status"), {"status": {"loadBalancer": {"ingress": list(entries) or None}}})

    def host(self, name, *addresses):
        """`NAME.lb.rig` leads to `addresses`, by a file that CoreDNS reads anew. Returns the full name."""
        full = f"{name}.{self.ZONE}"
        self.hosts[full] = addresses
        fresh = self.home / "hosts.new"
        fresh.write_text("".join(f"{address} {host}\n" for host, all_of in self.hosts.items() for address in all_of))
        fresh.rename(self.home / "hosts")
        return full

    def resolver(self, namespace_on_this_machine, kubernetes_namespace):
        """The resolv.conf that a pod of `kubernetes_namespace` would have, for every process in that network namespace."""
        search = f"{kubernetes_namespace}.svc.cluster.local svc.cluster.local cluster.local"
        net.resolver(namespace_on_this_machine, f"nameserver {self.address}\nsearch {search}\noptions ndots:5\n")
