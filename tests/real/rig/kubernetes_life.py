"""What a Kubernetes cluster does to the nodes in its life, each step with every driver reading all the while.

A step's row of the report says how many reads went on and how many of them failed; none may. After each step CA2 to CA4
hold. Truth about addresses is the kubelet's: it is the rig's own.
"""
import signal

from . import assertions as a
from . import contradicted, net, rights, schema
from .api_witness import JOINED, LEFT, RETURNED, Metrics, Witness
from .cql import Refused
from .gateway_pod import GatewayPod
from .kubeapi import Refused as ApiRefused
from .life import Life
from .program import Died
from .wait import Late, until


class KubernetesLife(Life):
    FRESH = 31

    def __init__(self, release, *arguments, **more):
        super().__init__(*arguments, **more)
        self.release, self.plane, self.kubelet = release, release.plane, release.kubelet
        # Where pods come back: addresses that no node has had.
        self.fresh = (f"{net.NODES}.{last}" for last in range(self.FRESH, 99))
        KubernetesLife.FRESH += 20
        # When the rig itself forbade what, as `rights.used` has it.
        self.excused = []

    def loaded(self, step, act, moved=None):
        """Reads go on in every program while `act()` happens and until the driver finds all right again. `moved`: pod → what drivers
        must be told of it; of other nodes they must be told nothing, and where it is empty no connection may be closed either. None
        where the whole map changes."""
        witness, before = Witness(self.gateway, self.programs), self.addresses()
        self.tell(lambda p: p.ask("start"))
        try:
            act()
            self.announced(step)
            expected = self.expected()
        except BaseException:
            self.tell(lambda p: p.ask("stop"))
            raise
        where = {**before, **self.addresses()}

        def check(program):
            said = self.settled(program, expected)
            if moved is None:
                return said
            if not moved:
                witness.unmoved()
                said += "; no connection closed"
            return f"{said}; {witness.told(program, {where[pod]: kinds for pod, kinds in moved.items() if pod in where})}"
        self.judge(step, check)

    def held_downs(self):
        """How often the gateway kept a node's DOWN to itself."""
        return int(Metrics(self.gateway).sum("events_total", action="held", event="DOWN"))

    def log(self):
        return (self.gateway.home / "out.log").read_text(errors="replace").splitlines()

    def addresses(self):
        """pod → what clients dial for it."""
        return {row["name"]: row["advertised"] for row in self.gateway.topology()["nodes"] if row["advertised"]}

    def settled(self, program, expected):
        try:
            took = a.eventually("all right", lambda: a.all_right(program, expected), self.wait)[1]
        finally:
            said = program.ask("stop")
        count = f"{said['ok'] + said['errors']} reads, {said['errors']} failed"
        if said["errors"] or not said["ok"]:
            raise a.Failed(f"{count}: {str(said['first'])[:200]}")
        return f"{count}; right {took:.1f} s after"

    def pod(self, index):
        """(pod, node) of a node of the ring."""
        node = self.ring.nodes[index]
        return next(pod for pod, tied in self.kubelet.nodes.items() if tied is node), node

    def same_port(self, node, act):
        host_id = str(node.open()["host_id"])
        before = self.gateway.advertised()[host_id]

        def both():
            act()
            self.announced("the node again")
            now = self.gateway.advertised()[host_id]
            if now != before:
                raise a.Failed(f"was {before}, is {now}")
        return both, host_id

    def replaced(self):
        """A pod is made again elsewhere, at another address."""
        pod, node = self.pod(2)
        act, host_id = self.same_port(node, lambda: self.kubelet.replace(pod, node, next(self.fresh)))
        self.loaded("replaced", act, {pod: RETURNED})
        self.judge("traffic", lambda p: a.eventually("traffic", lambda: a.traffic_reaches(p, host_id), self.wait) and "reads reach it")

    def killed(self):
        """A node dies without a word and starts again where it was."""
        pod, node = self.pod(0)

        def act():
            node.stop(signal.SIGKILL)
            self.kubelet.ready(pod, False)
            node.start()
            node.wait_open()
            self.kubelet.ready(pod)
        self.loaded("killed", self.same_port(node, act)[0], {pod: RETURNED})

    def scaled(self):
        """3 → 4 and back."""
        def up():
            self.kubelet.scale("cassandra", 4)
            self.kubelet.place("cassandra-3", f"{net.NODES}.14")
            self.kubelet.nodes["cassandra-3"] = self.ring.add()
            self.kubelet.ready("cassandra-3")
            until("the nodes agree on the schema", lambda: schema.agreed(self.ring), 60)

        def down():
            self.kubelet.scale("cassandra", 3)
            until("cassandra-3 is to go", lambda: self.kubelet.terminating("cassandra-3"), 30)
            # What a preStop hook does.
            self.ring.remove(self.kubelet.nodes.pop("cassandra-3"))
            self.kubelet.forget("cassandra-3")
        self.loaded("scaled-up", up, {"cassandra-3": JOINED})
        self.loaded("scaled-down", down, {"cassandra-3": LEFT})

    def rolled(self):
        """A rolling restart, each pod coming back at another address than it had."""
        self.loaded("rolled", lambda: self.kubelet.rolling_restart("cassandra", 3, lambda _: next(self.fresh)),
                    {f"cassandra-{ordinal}": RETURNED for ordinal in range(3)})

    def rack(self):
        """All pods of a rack go at once, and come back elsewhere; what they are not asked for the other rack answers."""
        pods = [pod for pod in self.kubelet.nodes if pod.rsplit("-", 1)[0] == next(iter(self.kubelet.nodes)).rsplit("-", 1)[0]]

        def act():
            for pod in pods:
                self.kubelet.terminate(pod)
            for pod in pods:
                self.kubelet.nodes[pod].stop(signal.SIGTERM)
                self.kubelet.forget(pod)
            for pod in pods:
                node = self.kubelet.nodes[pod]
                node.move(next(self.fresh))
                self.kubelet.place(pod, node.address)
                node.start()
            for pod in pods:
                self.kubelet.nodes[pod].wait_open()
                self.kubelet.ready(pod)
        self.loaded("rack", act, {pod: RETURNED for pod in pods})

    def flapping(self):
        """A node that answers is called unready and ready again, 20 times: nobody notices."""
        pod, _ = self.pod(1)
        # A pod that an earlier step has taken away is given up for good a minute later.
        until("nobody is about to leave", lambda: all(row["state"] in ("up", "gone") for row in self.gateway.topology()["nodes"]), 120)

        def act():
            for _ in range(20):
                for state in (False, True):
                    self.kubelet.ready(pod, state)
                    until("the slice follows", lambda s=state: self.kubelet.endpoints("cassandra")[pod][1] == s, 10)
        self.loaded("flapping", act, {})

    def hostname(self):
        """The load balancer has a name in place of its address; the name leads elsewhere and the former address goes, node by node; then back."""
        name = self.plane.host("front", net.GATEWAY)

        def advertised(address):
            said = self.gateway.advertised().values()
            return all(one and one.startswith(f"{address}:") for one in said)

        def told(program, address):
            return any(node["address"] == address for node in program.ask("nodes")["nodes"])

        def moves(change, address, former=None):
            change()
            until(f"the gateway says {address}", lambda: advertised(address), 30)
            if former:
                # A driver asks anew through an address that it knew before: that one may only go after this. The node that it asks
                # keeps it, in Java 4 and Python, for as long as it answers.
                for program in self.programs:
                    until(f"{program.driver.name} is told of {address}", lambda p=program: told(p, address), 30)
                ports = sorted(self.gateway.ports().values())
                for count in range(1, len(ports) + 1):
                    net.refuse(self.gateway.namespace, former, ports[:count])
                    expected = self.expected()
                    self.tell(lambda p: a.eventually("every node by its own pool", lambda: a.ca3(p, expected), self.wait))

        self.loaded("name", lambda: moves(lambda: self.release.ingress({"hostname": name}), net.GATEWAY))
        self.loaded("name-moved", lambda: moves(lambda: self.plane.host("front", net.GATEWAY_LATER), net.GATEWAY_LATER, net.GATEWAY))
        # The former address answers again before it is told.
        net.refuse(self.gateway.namespace, net.GATEWAY, ())
        self.loaded("address", lambda: moves(lambda: self.release.ingress({"ip": net.GATEWAY}), net.GATEWAY, net.GATEWAY_LATER))

    def maps(self):
        """A second gateway, started when all is there, says the same map as the one that saw it grow."""
        other = GatewayPod(self.ring, self.release, number=2).start()
        try:
            mine, its = self.gateway.ports(), other.ports()
            self.judge("same-map", lambda _: same(mine, its))
        finally:
            other.stop()

    def end(self):
        """CA1 over the whole life, every program ended; the Role is least privilege, and nothing beyond it was asked."""
        super().end()
        self.asked()

    def asked(self):
        """The Role is least privilege, and nothing beyond it was asked; forbidden was what the rig forbade for a while."""
        self.judge("rights", lambda _: rights.check(self.release))
        spaces = (self.release.namespace, self.kubelet.namespace)
        excused = [*self.excused, *((first, last, ()) for first, last in self.plane.starts)]
        self.judge("audit", lambda _: rights.used(self.release, rights.written(self.release, spaces), excused))


def same(one, other):
    if one != other:
        raise a.Failed(f"{one} and {other}")
    return str(one)


STEPS = {"replaced": KubernetesLife.replaced, "killed": KubernetesLife.killed, "scaled": KubernetesLife.scaled,
         "rolled": KubernetesLife.rolled, "rack": KubernetesLife.rack, "flapping": KubernetesLife.flapping, "hostname": KubernetesLife.hostname,
         "cutoff": contradicted.cutoff, "impostor": contradicted.impostor, "maps": KubernetesLife.maps, "schema": KubernetesLife.schema, "end": KubernetesLife.end}


def live(life, steps):
    for step in steps:
        print(f" {step}: {STEPS[step].__doc__ or ''}".rstrip(), flush=True)
        try:
            STEPS[step](life)
        except (Late, Refused, ApiRefused, a.Failed, Died, OSError, RuntimeError) as broken:
            print(f"  the rig could not finish `{step}`: {broken}")
            for program in life.programs:
                life.record(program, step, "failed", f"the rig: {broken}")
