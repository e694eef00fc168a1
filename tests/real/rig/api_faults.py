"""The Kubernetes API in trouble, each fault a step with every driver reading all the while: no read fails, nobody is told of a
node what is not true, the gateway asks no more than it should, and its metrics say how it is.

A step shows that its fault was really there, by the gateway's metrics or the apiserver's audit log; where nothing happens to the
nodes nothing may happen to clients either: the map keeps its generation and no connection is closed. CA2 to CA4 hold afterwards.
"""
import signal
import time

from . import api_trouble as trouble
from . import assertions as a
from .api_witness import RETURNED, WATCHES, Metrics, Witness
from .cql import Refused
from .gateway_pod import GatewayPod
from .kubeapi import Refused as ApiRefused
from .kubeapi import namespaced
from .kubernetes_life import KubernetesLife, same
from .kubernetes_suite import NAMES, Cluster, Stand
from .program import Died
from .wait import Late, until

# What the gateway says of a connection that does not come about, or that ends.
GONE_QUIET = ("connection", "timeout")


class ApiFaults(KubernetesLife):
    def fault(self, step, act, moved=(), lists=8, recovery=60, forbidden=()):
        """Reads go on in every program while `act(witness)` brings the fault, shows that it is there and takes it away, until
        the gateway hears the API again. `moved`: pods to which something happens: drivers are told that they went and came back.
        `forbidden`: the resources to which the step takes the right away."""
        witness = Witness(self.gateway, self.programs)
        until("every watch is connected", lambda: Metrics(self.gateway).connected() >= set(WATCHES), 60)
        self.tell(lambda p: p.ask("start"))
        try:
            said = [act(witness), witness.recovered(recovery)]
            self.announced(step)
            expected = self.expected()
        except BaseException:
            self.tell(lambda p: p.ask("stop"))
            raise
        finally:
            if forbidden:
                self.excused.append((witness.records, len(self.plane.audit()), forbidden))
        where = self.addresses()
        ours = {where.get(pod): RETURNED for pod in moved}

        def check(program):
            told = self.settled(program, expected), witness.told(program, ours)
            witness.same_ports() if moved else witness.unmoved()
            return "; ".join(filter(None, (*told, *said, witness.moderate(lists))))
        self.judge(step, check)

    def stays_ready(self):
        if Metrics(self.gateway).sum("ready") != 1:
            raise a.Failed("not ready")

    def holds(self, seconds, witness):
        """A fault that lasts: all the while the gateway is ready and says nothing new."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.stays_ready()
            witness.same_ports()
            time.sleep(0.5)  # the fault's own length

    def stale(self, at_least):
        """The metric says for how long the API has not been heard."""
        age = Metrics(self.gateway).staleness()
        if age < at_least:
            raise a.Failed(f"the API was away, and the metrics say that it was heard {age:.0f} s ago")
        return f"{age:.0f} s stale"

    def replaced_pod(self, index):
        """(pod, its ring's node); the pod is the same one at another address afterwards."""
        pod, node = self.pod(index)
        self.kubelet.replace(pod, node, next(self.fresh))
        return pod, node

    # The apiserver and etcd.

    def restarted(self):
        """The apiserver is killed and started again."""
        def act(witness):
            self.plane.kill_apiserver()
            seen = witness.failing(*GONE_QUIET)
            self.stays_ready()
            self.plane.start_apiserver()
            return seen
        self.fault("restarted", act)

    def away(self):
        """The apiserver is away for a minute. A node dies and comes back, which probes see; another one's pod is moved meanwhile."""
        (dead, node), (moved, other) = self.pod(0), self.pod(2)

        def act(witness):
            self.plane.kill_apiserver()
            begun = time.monotonic()
            seen = witness.failing(*GONE_QUIET)
            node.stop(signal.SIGKILL)
            until("the dead node is down", lambda: self.state(dead) == "down", 20)
            other.stop()
            other.move(next(self.fresh))
            for one in (node, other):
                one.start()
                one.wait_open()
            until("the dead node is up again", lambda: self.state(dead) == "up", 30)
            self.holds(60 - (time.monotonic() - begun), witness)
            stale = self.stale(50)
            self.plane.start_apiserver()
            self.kubelet.terminate(moved)
            self.kubelet.forget(moved)
            self.kubelet.run(moved, other)
            until("its slice", lambda: self.kubelet.endpoints("cassandra").get(moved, ("",))[0] == other.address, 60)
            begun = time.monotonic()
            until("the moved pod is up", lambda: self.state(moved) == "up", 30)
            return f"{seen}; {stale}; {moved} followed {time.monotonic() - begun:.1f} s after its slice"
        self.fault("away", act, moved=(dead, moved))

    def state(self, pod):
        return next(row["state"] for row in self.gateway.topology()["nodes"] if row["name"] == pod)

    def expired(self):
        """410: after something was written the apiserver starts anew with an empty watch cache."""
        def act(witness):
            trouble.write(self.plane)
            self.plane.kill_apiserver()
            self.plane.start_apiserver()
            until("the watches' place is gone", lambda: all(witness.failed(("gone",), one) for one in WATCHES), 60)
            witness.recovered(60)
            # Time alone may have been a reason for another one.
            if not len(WATCHES) <= witness.lists() <= 2 * len(WATCHES):
                raise a.Failed(f"{witness.lists()} lists for {len(WATCHES)} watches: {dict(witness.asked())}")
            return f"410 on {len(WATCHES)} watches, {witness.lists()} lists"
        self.fault("expired", act, lists=len(WATCHES))

    def compacted(self):
        """410 from etcd's compaction, where the apiserver keeps no history of slices itself."""
        def act(witness):
            self.plane.kill_apiserver()
            self.plane.start_apiserver("--watch-cache-sizes=endpointslices.discovery.k8s.io#0")
            witness.recovered(60)
            before = witness.failed(("gone",))
            trouble.write(self.plane)
            trouble.compact(self.plane)
            trouble.cut(self.gateway)
            until("the place in the history is gone", lambda: witness.failed(("gone",)) > before, 60)
            witness.recovered(60)
            self.plane.kill_apiserver()
            self.plane.start_apiserver()
            return "410 on the slices' watch"
        self.fault("compacted", act, lists=3 * len(WATCHES))

    def frozen(self):
        """The apiserver is stopped for 20 s and its connections are cut: new ones are accepted by its kernel, and silent."""
        def act(witness):
            self.plane.freeze()
            try:
                trouble.cut(self.gateway)
                seen = witness.failing(*GONE_QUIET)
                self.holds(20, witness)
                return f"{seen}; {self.stale(15)}"
            finally:
                self.plane.thaw()
        self.fault("frozen", act)

    def etcd(self):
        """etcd is stopped for 15 s: the apiserver answers from its cache or not at all."""
        def act(witness):
            self.plane.freeze("etcd")
            try:
                trouble.cut(self.gateway)
                if trouble.ready(self.plane):
                    raise a.Failed("the apiserver is ready without etcd")
                self.holds(15, witness)
            finally:
                self.plane.thaw("etcd")
            until("the apiserver is ready", self.plane.ready, 30)
            return "the apiserver was not ready"
        self.fault("etcd", act)

    def restored(self):
        """etcd is restored from a backup that is a move of a pod older: the gateway's watches wait for revisions that are long to come,
        and hear nothing. The pod is moved again."""
        pod, node = self.pod(1)

        def before(_):
            self.plane.back_up()
            old = trouble.revision(self.plane)
            for _ in range(200):
                trouble.write(self.plane)
            self.replaced_pod(1)
            self.follows(pod, node)
            return f"{trouble.revision(self.plane) - old} revisions after the backup"

        def act(witness):
            late = trouble.revision(self.plane)
            self.plane.restore()
            witness.recovered(60)
            self.stays_ready()
            # What kubelet does with a pod that the API does not have: it goes, and comes back as the API wants it.
            self.replaced_pod(1)
            followed = self.follows(pod, node)
            if witness.failed(("gone",)):
                raise a.Failed("the slices' watch was refused: it was not the backup that was found out about")
            witness.said("history has gone back", "endpointslices")
            if trouble.revision(self.plane) >= late:
                raise a.Failed("etcd has caught up with the watches")
            return f"{late - trouble.revision(self.plane)} revisions before the watches; {pod} followed {followed:.1f} s after it was ready"
        self.fault("backup", before, moved=(pod,))
        self.fault("restored", act, moved=(pod,), lists=16)

    def follows(self, pod, node):
        """Until the gateway serves the pod where it is; how long that took."""
        begun = time.monotonic()

        def there():
            row = next(row for row in self.gateway.topology()["nodes"] if row["name"] == pod)
            return row["state"] == "up" and row["address"].rsplit(":", 1)[0] == node.address
        until(f"{pod} is up at {node.address}", there, 60)
        return time.monotonic() - begun

    # What is between.

    def hole(self):
        """Nothing passes to and from the control plane, its DNS neither, until the gateway trusts the silence no more, or a list that comes with
        time is not answered; and 10 s on."""
        def act(witness):
            with trouble.unplugged(self.plane):
                begun = time.monotonic()
                if trouble.ready(self.plane):
                    raise a.Failed("the apiserver can be reached")
                seen = witness.failing(*GONE_QUIET, seconds=150)
                noticed = f"after {time.monotonic() - begun:.0f} s; {self.stale(15)}"
                self.holds(10, witness)
            until("the apiserver is ready", self.plane.ready, 30)
            return f"{seen}, {noticed}"
        self.fault("hole", act)

    def silent(self):
        """The gateway's packets to the apiserver and back vanish for longer than it trusts a silence; a pod moves meanwhile."""
        pod, node = self.pod(1)

        def act(witness):
            with trouble.silence(self.gateway) as dropped:
                begun = time.monotonic()
                seen = witness.failing(*GONE_QUIET, seconds=150)
                noticed = f"after {time.monotonic() - begun:.0f} s; {self.stale(15)}"
                self.replaced_pod(1)
                lost = dropped()
            if not lost:
                raise a.Failed("no packet was dropped")
            begun = time.monotonic()
            until("the moved pod is up", lambda: self.state(pod) == "up", 60)
            return f"{lost} packets dropped; {seen}, {noticed}; {pod} followed {time.monotonic() - begun:.1f} s after"
        self.fault("silent", act, moved=(pod,))

    def cut(self):
        """Every connection to the apiserver is reset, five times."""
        def act(witness):
            for count in range(1, 6):
                trouble.cut(self.gateway)
                until(f"the watches begin anew, {count}", lambda c=count: self.begun(witness) >= c * len(WATCHES), 30)
            return f"{self.begun(witness)} watches begun"
        self.fault("cut", act, lists=0)

    def begun(self, witness):
        return sum(count for (verb, _, code), count in witness.asked().items() if (verb, code) == ("watch", 200))

    # What the gateway may.

    def throttled(self):
        """429 by the apiserver's priority and fairness, for 20 s."""
        def act(witness):
            with trouble.jail(self.release):
                trouble.cut(self.gateway)
                seen = witness.failing("throttled")
                self.holds(20, witness)
                stale = self.stale(15)
                refused = sum(count for (_, _, code), count in witness.asked().items() if code == 429)
            if not refused:
                raise a.Failed(f"the audit log has no 429: {dict(witness.asked())}")
            return f"{seen}; {refused} requests refused in 20 s; {stale}"
        self.fault("throttled", act)

    def forbidden(self):
        """The RoleBinding in the nodes' namespace is deleted while the watches are cut, and made again."""
        theirs = tuple(one for one in WATCHES if one != "load_balancer")

        def act(witness):
            with trouble.without_binding(self.release, self.kubelet.namespace):
                trouble.cut(self.gateway)
                seen = witness.failing("forbidden", resources=theirs)
                for resource in ("endpointslices.discovery.k8s.io", "pods", "services"):
                    witness.said("watch", resource, f"in namespace {self.kubelet.namespace}")
                self.holds(15, witness)
                stale = self.stale(10)
            return f"{seen}, said with verb and resource; {stale}"
        self.fault("forbidden", act, forbidden=("endpointslices", "pods", "services"))

    def podless(self):
        """The right to watch Pods is taken away: EndpointSlices alone are followed, by a gateway that starts then, too. One pod moves,
        another one is withdrawn although its node answers, and comes back."""
        pod, _ = self.pod(1)
        moved = [pod]

        def act(witness):
            with trouble.without_rule(self.release, self.kubelet.namespace, "pods"):
                trouble.cut(self.gateway)
                seen = witness.failing("forbidden", resources=("pods",))
                self.replaced_pod(1)
                until("the moved pod is up", lambda: self.state(pod) == "up", 60)
                moved.append(next(one for one in self.in_company() if one != pod))
                self.withdrawn(moved[1], witness)
                other = GatewayPod(self.ring, self.release, number=2).start()
                try:
                    same(self.gateway.ports(), other.ports())
                    before = other.topology()["generation"]
                    self.new_slices()
                    # What comes after it in the watch has been heard.
                    time.sleep(2)
                    if other.topology()["generation"] != before:
                        raise a.Failed(f"slices under other names changed the map of the gateway without Pods: {other.topology()}")
                finally:
                    other.stop()
            witness.said("Pods may not be watched")
            return f"{seen}; {pod} followed; {moved[1]} was down while it was withdrawn; slices made anew changed nothing"
        self.fault("podless", act, moved=moved, lists=30, forbidden=("pods",))

    def in_company(self):
        """Pods that are not alone in their slice. The slice of one that is goes with it, which by itself says nothing of a pod."""
        found = self.kubelet.api.ask("GET", self.kubelet.path("", "endpointslices", "discovery.k8s.io/v1"))["items"]
        return [endpoint["targetRef"]["name"] for one in found if len(one.get("endpoints") or ()) > 1 for endpoint in one["endpoints"]]

    def withdrawn(self, pod, witness):
        """The pod is taken out of its slice, and its next one is nowhere for a while; the node goes on. What the gateway had seen of the
        Pod before it may see Pods no more is no witness."""
        node = self.kubelet.nodes[pod]
        self.kubelet.terminate(pod)
        self.kubelet.forget(pod)
        try:
            until("the slice lets it go", lambda: pod not in self.kubelet.endpoints("cassandra"), 30)
            until("the withdrawn pod is down", lambda: self.state(pod) == "down", 90)
            self.holds(5, witness)
        finally:
            self.kubelet.run(pod, node)
        until("it is up again", lambda: self.state(pod) == "up", 60)

    def token(self):
        """The token becomes void, as when the ServiceAccount is made anew; then kubelet brings another."""
        def act(witness):
            trouble.new_account(self.release)
            until("the token is void", lambda: trouble.answer(self.release, trouble.token(self.gateway)) == 401, 30)
            trouble.cut(self.gateway)
            seen = witness.failing("unauthorized")
            self.holds(5, witness)
            self.gateway.renew()
            return f"{seen}; {witness.recovered(120)}, by the new token"
        self.fault("token", act, recovery=120)

    def authority(self):
        """The apiserver's certificate comes from another CA: the file has both first, then the new one alone."""
        def act(witness):
            old = (self.plane.home / "ca.crt").read_text()
            new = trouble.second_authority(self.plane)
            self.gateway.write("ca.crt", old + new)
            self.plane.kill_apiserver()
            seen = witness.failing(*GONE_QUIET)
            trouble.change_authority(self.plane, old + new)
            both = witness.recovered(120)
            self.gateway.write("ca.crt", new)
            trouble.cut(self.gateway)
            return f"{seen}; {both}, by the new CA"
        self.fault("authority", act, recovery=120)

    # What the API says of the nodes.

    def slices(self):
        """Every EndpointSlice is deleted and the controller makes them anew, five times."""
        def act(witness):
            for _ in range(5):
                self.new_slices()
            return "all slices under new names"
        self.fault("slices", act, lists=4)

    def new_slices(self):
        before = trouble.names_of_slices(self.kubelet)
        self.plane.kubectl("-n", self.kubelet.namespace, "delete", "endpointslices", "--all")
        until("new slices", lambda: not trouble.names_of_slices(self.kubelet) & before
              and len(self.kubelet.endpoints("cassandra")) == len(self.ring.nodes), 30)

    def service(self):
        """The headless Service is deleted, and its slices and names with it; 10 s later it is made again."""
        path = namespaced(self.kubelet.namespace, "services", "cassandra")

        def act(witness):
            with trouble.without(self.plane, path):
                # No garbage collector is waited for: it takes its time.
                until("no slices", lambda: not trouble.names_of_slices(self.kubelet), 60)
                self.holds(10, witness)
            until("slices again", lambda: len(self.kubelet.endpoints("cassandra")) == len(self.ring.nodes), 60)
            return "no slices for 10 s"
        self.fault("service", act, lists=4)

    def orphaned(self):
        """Every EndpointSlice is deleted while the controller is stopped, and watches are cut: the Pods are there, and they answer."""
        def act(witness):
            self.plane.freeze("kube-controller-manager")
            try:
                self.plane.kubectl("-n", self.kubelet.namespace, "delete", "endpointslices", "--all")
                trouble.cut(self.gateway)
                self.holds(15, witness)
                if trouble.names_of_slices(self.kubelet):
                    raise a.Failed("there are slices")
            finally:
                self.plane.thaw("kube-controller-manager")
            until("slices again", lambda: len(self.kubelet.endpoints("cassandra")) == len(self.ring.nodes), 60)
            return "no slices for 15 s"
        self.fault("orphaned", act, lists=8)

    # The gateway itself.

    def restart(self):
        """The gateway starts anew while the API is away, from its snapshot: the same ports. Its end is the end of its connections."""
        before = self.gateway.ports()
        self.plane.kill_apiserver()
        try:
            self.gateway.stop()
            self.gateway.start()
            self.judge("restart", lambda _: same(before, self.gateway.ports()))
            expected = self.expected()
            self.judge("restart-reads", lambda p: self.after(p, expected))
        finally:
            self.plane.start_apiserver()
        self.fault("restart-api", lambda _: "the API is back")

    def after(self, program, expected):
        """Every connection was lost; once the driver has found its way back no read fails any more."""
        took = a.eventually("all right", lambda: a.all_right(program, expected), self.wait)[1]
        return f"right {took:.1f} s after; {a.some_reads(program)['ok']} reads, 0 failed"


STEPS = {name: getattr(ApiFaults, name) for name in (
    "restarted", "away", "expired", "compacted", "frozen", "etcd", "restored", "hole", "silent", "cut", "throttled", "forbidden", "podless", "token",
    "slices", "service", "orphaned", "restart", "authority", "end")}


def live(life, steps):
    """Each of `steps` (name → step) in turn; one that the rig cannot finish has failed, and the next one has its turn."""
    for name, step in steps.items():
        print(f" {name}: {step.__doc__}", flush=True)
        try:
            step(life)
        except (Late, Refused, ApiRefused, a.Failed, Died, OSError, RuntimeError) as broken:
            for program in life.programs:
                life.record(program, name, "failed", broken)


def run(report, names=NAMES, steps=tuple(STEPS)):
    """CA1 to CA4, then fault after fault."""
    from . import drivers

    drivers.prepare(names)
    report.details = True
    cluster = Cluster()
    cluster.place(f"cassandra-{ordinal}" for ordinal in range(3))
    stand = Stand(report, cluster, cluster.gateway().start())
    title = "kubernetes-api"
    for name in names:
        stand.cell(title, name)
    life = ApiFaults(cluster.release, cluster.ring, stand.gateway, stand.programs(title, names), stand.contacts, stand.recorder(title))
    live(life, {step: STEPS[step] for step in (*(one for one in steps if one != "end"), "end")})
    stand.gateway.stop()
    cluster.stop()
