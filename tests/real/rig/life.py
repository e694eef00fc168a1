"""CA5 to CA9: what happens to a cluster in its life, with every driver looking on at once.

The cluster pays for each event (a failure detector's 20 s, a decommission's 15 s) only once; each driver is judged by
itself. A driver that has failed an assertion goes on to the next.
"""
import signal

from . import assertions as a
from . import net, schema
from .cql import Refused
from .program import Died
from .wait import Late, until


class Life:
    """`wait`: how long a driver may take to see what has happened."""

    def __init__(self, ring, gateway, programs, contacts, record, wait=60):
        self.ring, self.gateway, self.programs, self.record, self.wait = ring, gateway, programs, record, wait
        # nodes → contact points
        self.contacts = contacts

    def judge(self, assertion, check, only=None, weaker=None):
        """`check(program)` for each program, one row of the report each; `weaker` where the driver is known to fail by itself."""
        for program in list(self.programs):
            if only and program.driver.view != only:
                self.record(program, assertion, "-", "")
                continue
            try:
                if weaker and assertion in program.driver.faults:
                    self.record(program, assertion, "ok", f"{weaker(program)} (driver: {program.driver.faults[assertion]})")
                else:
                    self.record(program, assertion, "ok", check(program) or "")
            except (a.Failed, Died) as failed:
                self.record(program, assertion, "failed", failed)

    def tell(self, check):
        """`check(program)` for each, nothing recorded: a program that fails here fails its next assertion too."""
        for program in self.programs:
            try:
                check(program)
            except (a.Failed, Died) as failed:
                print(f"  {program.driver.name}: {failed}")

    def announced(self, what, seconds=40):
        """Until the gateway shows every node of the ring as it is. A gateway that does not is judged through the drivers."""
        def check():
            if None in self.gateway.advertised().values():
                raise a.Failed(f"the gateway does not announce {what}")
        try:
            a.eventually(what, check, seconds)
        except a.Failed as failed:
            print(f"  {failed}")

    def expected(self):
        return a.Expectation(self.ring, self.gateway)

    def death(self):
        """CA5: node 2 stops in good order and returns; no read fails meanwhile."""
        node = self.ring.nodes[1]
        host_id = str(node.open()["host_id"])
        failed, down = {}, {}

        def each(check):
            for program in self.programs:
                if program.driver.view != "single node" and program not in failed:
                    try:
                        check(program)
                    except (a.Failed, Died) as error:
                        failed[program] = error

        # Who never reached the node cannot lose it.
        each(lambda p: a.eventually("before", lambda: a.traffic_reaches(p, host_id), 10))
        self.tell(lambda p: p.ask("start"))
        node.stop(signal.SIGTERM)
        each(lambda p: p.driver.deaf or down.update({p: a.eventually("down", lambda: a.reported_down(p, host_id), self.wait)[1]}))
        self.judge("CA5", lambda p: self.after_death(p, failed, down, host_id), weaker=self.reborn)
        node.start()
        node.wait_open()
        self.announced("node 2 again")
        expected = self.expected()

        def returned(program):
            a.eventually("up", lambda: a.all_right(program, expected), self.wait)
            a.eventually("traffic", lambda: a.traffic_reaches(program, host_id), self.wait)
            return "up again, reads reach it"

        self.judge("CA5-up", returned, only="node ports")

    def reborn(self, program):
        """What is left for a driver whose session cannot go on: a new one must, while the node is away."""
        fresh = program.again(self.contacts([n for n in self.ring.nodes if n.process.poll() is None]))
        self.programs[self.programs.index(program)] = fresh
        a.eventually("reads", lambda: a.some_reads(fresh), self.wait)
        return "a new session reads"

    def after_death(self, program, failed, down, host_id):
        if program.driver.view == "single node":
            # What was in flight to the dead node may fail; after that another node must serve.
            said = program.ask("stop")
            a.eventually("reads", lambda: a.some_reads(program), self.wait)
            return f"{said['errors']} reads failed at the moment, then none"
        said = program.ask("stop")
        if program in failed:
            raise failed[program]
        if said["errors"] or not said["ok"]:
            raise a.Failed(f"{said['errors']} of {said['ok'] + said['errors']} reads failed: {str(said['first'])[:200]}")
        if program.driver.deaf:
            a.eventually("elsewhere", lambda: a.passed_by(program, host_id), self.wait)
            return f"{said['ok']} reads, 0 errors; then all elsewhere (driver: {program.driver.deaf})"
        return f"{said['ok']} reads, 0 errors; down after {down[program]:.1f} s"

    def control(self):
        """CA6: node 1, where the control connections are, dies without a word."""
        node = self.ring.nodes[0]
        before = {}
        self.tell(lambda p: before.update({p: p.ask("nodes")["control"]}))
        dead = self.gateway.advertised()[str(node.open()["host_id"])]
        node.stop(signal.SIGKILL)

        def moved(program):
            a.eventually("reads", lambda: a.some_reads(program), self.wait)
            if before.get(program) != dead:
                return f"control was at {before.get(program) or 'an unknown node'}, reads go on"

            def elsewhere():
                now = program.ask("nodes")["control"]
                if now in (None, dead):
                    raise a.Failed(f"control connection still at {now}")
                return now
            return f"control now at {a.eventually('control', elsewhere, self.wait)[0]}"

        self.judge("CA6", moved, weaker=self.reborn)
        node.start()
        node.wait_open()
        self.announced("node 1 again")
        expected = self.expected()
        self.judge("CA6-up", lambda p: f"all right after {a.eventually('up', lambda: a.all_right(p, expected), self.wait)[1]:.1f} s")

    def growth(self):
        """CA7: node 4 joins, and leaves."""
        node = self.ring.add()
        until("the nodes agree on the schema", lambda: schema.agreed(self.ring), 60)
        self.announced("node 4")
        expected = self.expected()
        self.judge("CA7-in",
                   lambda p: f"seen after {a.eventually('node 4', lambda: a.all_right(p, expected), self.wait)[1]:.1f} s", only="node ports",
                   weaker=lambda p: f"listed after {a.eventually('node 4', lambda: a.ca2(p, expected), self.wait)[1]:.1f} s")
        self.ring.remove(node)
        expected = self.expected()
        self.judge("CA7-out", lambda p: f"gone after {a.eventually('no node 4', lambda: a.all_right(p, expected), self.wait)[1]:.1f} s", only="node ports")

    def move(self, address=f"{net.NODES}.23", how=signal.SIGKILL):
        """CA8: node 3 comes back with its data at another address; its port is the same, its former address says nothing."""
        node = self.ring.nodes[2]
        host_id = str(node.open()["host_id"])
        before = self.gateway.advertised()[host_id]
        node.stop(how)
        self.tell(lambda p: "CA5" in p.driver.faults and self.reborn(p))
        node.move(address)
        node.start()
        node.wait_open()
        self.announced("node 3 at its new address")
        expected = self.expected()

        def same(program):
            took = a.eventually("node 3", lambda: a.all_right(program, expected), self.wait)[1]
            if expected.advertised[host_id] != before and not self.gateway.direct:
                raise a.Failed(f"was {before}, is {expected.advertised[host_id]}")
            a.eventually("traffic", lambda: a.traffic_reaches(program, host_id), self.wait)
            return f"still {before}, right after {took:.1f} s"

        self.judge("CA8", same, only="node ports")

    def schema(self):
        """CA9: a schema change and agreement, among all nodes: one that leaves some out is none."""
        expected = self.expected()
        self.judge("CA9", lambda p: (a.ca2(p, expected), a.ca9(p))[1])

    def end(self):
        """CA1, over the whole life; and an orderly end of every program."""
        self.judge("CA1", lambda p: a.ca1(p.client))
        for program in self.programs:
            program.quit()


STEPS = {"death": Life.death, "control": Life.control, "growth": Life.growth, "move": Life.move, "schema": Life.schema, "end": Life.end}


def live(ring, gateway, programs, contacts, record, steps, wait=60):
    life = Life(ring, gateway, programs, contacts, record, wait)
    for step in steps:
        print(f" {step}", flush=True)
        try:
            STEPS[step](life)
        except (Late, Refused, OSError, RuntimeError) as broken:
            print(f"  the rig could not finish `{step}`: {broken}")
            for program in programs:
                record(program, step, "failed", f"the rig: {broken}")
