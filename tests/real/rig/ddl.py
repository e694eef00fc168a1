"""A table is created and used at once, at ALL, by the drivers that see one node for many: no first write may fail.

`open` nodes let everybody in; `login` they ask for one, and the gateway has one of its own; `slow` a node hears nothing for a while, and the
answer comes when it has caught up, or late; `unasked` nodes ask for a login that the gateway does not have: what fails then is told, and
nobody waits; `without` the same with `schema_agreement: 0s`, where first writes must fail, or nothing was shown.
"""
import signal
import threading

from . import assertions as a
from . import drivers, suites
from .api_witness import Metrics
from .cassandra import PLANTED
from .gateway import Gateway
from .program import Died, Program

# Each driver in one cell, then others with fewer tables.
CELLS = (("node", 4, "none"), ("gocql", 5, "lz4"), ("scylla", 4, "none"), ("node", 3, "none"), ("gocql", 4, "snappy"))
PARTS = ("open", "slow", "without", "login", "unasked")
TOLD = "schema_changes_told_total"
OUTCOMES = ("agreed", "late", "unknown", "no_room", "ended")
# What a frozen node makes the answer wait, and the most that it may: `views.schema_agreement` and a busy machine.
FROZEN, WAIT, MOST = 2.0, 5.0, 8.0


class Waiting(Gateway):
    """A gateway whose answers wait so long."""

    def __init__(self, ring, wait="5s", **more):
        self.wait_for = wait
        super().__init__(ring, **more)

    def yaml(self, credentials):
        return super().yaml(credentials) + f"views: {{schema_agreement: {self.wait_for}}}\n"


class Check:
    """One gateway, or none, and what is asked before it."""

    def __init__(self, report, part, ring, gateway, direct, credentials=None):
        self.suite = suites.Suite(report, ring, gateway.start(), direct)
        self.report, self.part, self.ring, self.gateway, self.direct, self.credentials = report, part, ring, gateway, direct, credentials

    def program(self, name, version, compression):
        """It starts at node 1, and stays there."""
        driver, contacts = drivers.DRIVERS[name], self.suite.contacts(self.ring.nodes[:1])
        return Program(driver, self.suite.client(name), contacts, version, compression, self.credentials)

    def told(self):
        """What became of changes so far, by outcome."""
        if self.direct:
            return {}
        found = Metrics(self.gateway)
        counts = {outcome: int(found.sum(TOLD, outcome=outcome)) for outcome in OUTCOMES}
        return {outcome: count for outcome, count in counts.items() if count}

    def add(self, driver, cell, assertion, check):
        try:
            self.report.add(f"ddl {self.part}", driver, cell, assertion, "ok", check())
        except (a.Failed, Died) as failed:
            self.report.add(f"ddl {self.part}", driver, cell, assertion, "failed", failed)

    def tables(self, cell, count, check):
        """Creates and uses so many; `check` says what of it is right."""
        name, version, compression = cell

        def use():
            program = self.program(name, version, compression)
            said = program.ask(f"tables {self.part}_{name}_{version},{count}", 30 + 15 * count)
            program.quit()
            text = (f"{said['failed']} of {count} failed ({said['first']}), the answer to CREATE after {said['p50']:.0f} ms "
                    f"(p50), {said['slowest']:.0f} ms (slowest); told: {self.told()}")
            return check(said, text)

        self.add(name, f"v{version} {compression}", "used", use)

    def end(self):
        self.gateway.stop()


def none_failed(said, text):
    if said["failed"]:
        raise a.Failed(text)
    return text


def some_failed(said, text):
    if not said["failed"]:
        raise a.Failed(f"nothing to see: {text}")
    return text


def slow(check, cell):
    """Node 3 is frozen: for a while, then for longer than anybody waits."""
    name, version, compression = cell
    node = check.ring.nodes[2]

    def frozen(thawed_after, least, most):
        program = check.program(name, version, compression)
        node.send(signal.SIGSTOP)
        timer = threading.Timer(thawed_after, node.send, (signal.SIGCONT,))
        timer.start()
        try:
            said = program.ask(f"tables slow_{name}_{version}_{int(thawed_after)},1", 90)
        finally:
            timer.join()
        program.quit()
        text = f"node 3 thawed after {thawed_after:.0f} s, the answer after {said['slowest'] / 1000:.1f} s, failed: {said['first']}"
        if not least <= said["slowest"] / 1000 <= most:
            raise a.Failed(text)
        return said, text

    check.add(name, f"v{version} {compression}", "waits", lambda: none_failed(*frozen(FROZEN, FROZEN * 0.9, WAIT)))
    # The write goes on when the node is back, or fails: it is the answer to CREATE that must not be lost.
    check.add(name, f"v{version} {compression}", "late", lambda: frozen(MOST + 1, WAIT * 0.9, MOST)[1])


def run(report, direct=False, names=("node", "gocql", "scylla"), steps=PARTS, tables=200):
    report.details = True
    cells = [cell for cell in CELLS if cell[0] in names]
    drivers.prepare(names)

    def check(part, ring, gateway, credentials=None):
        return Check(report, part, ring, gateway, direct, credentials)

    if {"open", "slow", "without"} & set(steps):
        ring = suites.ring_with_schema()
        stands = (lambda wait: suites.Direct(ring)) if direct else (lambda wait: Waiting(ring, wait))
        if "open" in steps:
            part = check("open", ring, stands("5s"))
            for at, cell in enumerate(cells):
                part.tables(cell, tables if at < len(names) else max(10, tables // 4), none_failed)
            part.end()
        if "slow" in steps and not direct:
            part = check("slow", ring, stands("5s"))
            for cell in cells[:len(names)]:
                slow(part, cell)
            part.end()
        if "without" in steps and not direct:
            part = check("without", ring, stands("0s"))
            for cell in cells[:len(names)]:
                part.tables(cell, max(10, tables // 5), some_failed)
            part.end()
        ring.kill()
    if {"login", "unasked"} & set(steps):
        ring = suites.ring_with_schema(auth=True)
        if "login" in steps:
            part = check("login", ring, suites.Direct(ring) if direct else Waiting(ring, credentials=PLANTED), PLANTED)
            for at, cell in enumerate(cells):
                part.tables(cell, tables if at < len(names) else max(10, tables // 4), none_failed)
            part.end()
        if "unasked" in steps and not direct:
            part = check("unasked", ring, Waiting(ring), PLANTED)
            for cell in cells[:len(names)]:
                part.tables(cell, max(10, tables // 10), lambda said, text: text)
            part.end()
        ring.kill()
