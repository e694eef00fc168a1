"""The hunt for a node's own address: mutated requests through the gateway by several connections at once, every answer judged.

Each connection's choices come from the seed that is printed; how the connections' requests fall between one another does not.
"""
import os
import random
import subprocess
import threading
import time
from collections import Counter

from . import cql, intruders, net, speaker
from . import mutations as m
from .assertions import Failed
from .judge import Judge
from .speaker import COMPRESSION, Closed, Speaker

CELLS = ((3, "none"), (3, "lz4"), (3, "snappy"), (4, "none"), (4, "lz4"), (4, "snappy"), (5, "none"), (5, "lz4"))
HUNTERS, INTRUDERS = 6, 2
# Findings after which there is enough to look at.
ENOUGH = 5


class Hunt:
    def __init__(self, ring, gateway, seed, gentle=False, holds=False):
        self.ports = [gateway.port_of(node) for node in ring.nodes]
        self.judge = Judge([node.address for node in ring.nodes])
        self.seed, self.pool, self.found, self.seen = seed, {True: [], False: []}, [], Counter()
        self.begun, self.first, self.gentle, self.holds = None, None, gentle, holds
        self.over, self.guard = threading.Event(), threading.Lock()

    def open(self, chance, version=None, compression="none", port=None):
        if version is None:
            version, compression = chance.choice(CELLS)
        made = Speaker((net.gateway_inside(), port or chance.choice(self.ports)), version, compression, chance)
        self.seen["connections"] += 1
        return made

    def learn(self, prepared, version):
        with self.guard:
            pool = self.pool[version >= 5]
            if prepared and prepared not in pool and len(pool) < 200:
                pool.append(prepared)

    def take(self, who, made, answer, said):
        """Counts and judges an answer; `said` is what had been sent before it."""
        flags, opcode, stream, body = answer
        self.seen["answers"] += 1
        if opcode == cql.RESULT and body[:4] == b"\0\0\0\4" and not flags:
            try:
                self.learn(m.prepared_of(made.version, body), made.version)
            except EOFError:
                pass
        if opcode == cql.RESULT and body[:4] == b"\0\0\0\2":
            self.seen["nameless rows" if body[7] & 0x04 else "named rows"] += 1
        if opcode in (cql.EVENT, cql.ERROR):
            self.seen["events" if opcode == cql.EVENT else "errors"] += 1
        what = self.judge(flags, opcode, body)
        if what:
            with self.guard:
                self.first = self.first or time.monotonic()
                self.found.append(f"{who} v{made.version} {made.compression}: {what}, stream {stream}; sent before it: {' '.join(f.hex() for f in said)[:600]}")
            if who.startswith(("hunter", "intruder")) and len(self.found) >= ENOUGH:
                self.over.set()

    def read(self, who, made, frames):
        """The answers to `frames`: all of them, or until none comes any more (not every request gets one)."""
        for count in range(len(frames)):
            answer = made.answer(0.7 if count == 0 else 0.3)
            if answer is None:
                break
            self.take(who, made, answer, frames)

    def exchange(self, who, made, *frames):
        self.seen["requests"] += len(frames)
        made.send(made.wrap(list(frames)))
        self.read(who, made, frames)

    def fixed(self):
        """What was once found by hand, first. A compression flag where nothing is compressed comes before a stream that is used twice in one
        write: the second, where it succeeds, spoils the statement for all."""
        chance = random.Random(f"{self.seed} fixed")
        for attack in (self.flagged, self.behind, self.twice):
            for turn, version in enumerate((3, 4, 5)):
                try:
                    attack(chance, version, f"SELECT native_address, native_port, rack FROM system.peers_v2 LIMIT {20 + turn}")
                    attack(chance, version, "SELECT * FROM system.peers_v2")
                except (Closed, OSError):
                    self.seen["closed"] += 1
        if self.found:
            self.over.set()

    def prepared(self, made, text):
        made.send(made.wrap([made.frame(cql.PREPARE, m.prepare(made.version, text), 1)]))
        answer = made.answer(5)
        prepared = answer and m.prepared_of(made.version, answer[3])
        if not prepared:
            raise Closed("not prepared")
        self.learn(prepared, made.version)
        return prepared

    def flagged(self, chance, version, text):
        """EXECUTE and QUERY with Skip_metadata and a flag that nodes ignore; the body is not compressed."""
        for opcode in (cql.EXECUTE, cql.QUERY):
            made = self.open(chance, version, port=self.ports[0])
            body = (m.execute(version, self.prepared(made, text)) if opcode == cql.EXECUTE else m.query(version, text, m.SKIP))
            self.exchange("compression flag", made, made.frame(opcode, body, 6, COMPRESSION))
            made.close()

    def twice(self, chance, version, text):
        """An answer to USE that is taken for one to an EXECUTE without metadata; then another client executes the same."""
        one, other = (self.open(chance, version, port=self.ports[0]) for _ in range(2))
        skipping = m.execute(version, self.prepared(one, text))
        for _ in range(3):
            self.exchange("stream twice", one, one.frame(cql.QUERY, m.query(version, "USE k3"), 1), one.frame(cql.EXECUTE, skipping, 1))
            self.exchange("after a stream twice", other, other.frame(cql.EXECUTE, skipping, 5))
        one.close()
        other.close()

    def behind(self, chance, version, text):
        """Requests behind a STARTUP that is not answered yet; then another client executes the same."""
        made = self.open(chance, version, port=self.ports[0])
        prepared, ordinary = (self.prepared(made, what) for what in (text, "SELECT keyspace_name FROM system_schema.keyspaces"))
        if version < 5:
            intruders.by_hand(self, chance, (net.gateway_inside(), self.ports[0]), version, prepared, ordinary)
        self.exchange("after requests behind a STARTUP", made, made.frame(cql.EXECUTE, m.execute(version, prepared), 5))
        made.close()

    def prepare_all(self, chance, port, version):
        made = self.open(chance, version, port=port)
        for text in m.SYSTEM + m.ORDINARY:
            self.exchange("prepare", made, made.frame(cql.PREPARE, m.prepare(version, text), 1))
        made.close()

    def mutated(self, mutator, made):
        while (frame := mutator.frame(made)) is None:
            self.seen["left out"] += 1
        return frame

    def hunter(self, number):
        chance = random.Random(f"{self.seed} {number}")
        mutator = m.Mutator(chance, self.pool, self.gentle, self.holds)
        who = f"hunter {number}"
        try:
            self.prepare_all(chance, self.ports[number % len(self.ports)], 5 if number % 2 else 4)
        except (Closed, OSError):
            self.seen["closed"] += 1
        while not self.over.is_set():
            made = None
            try:
                made = self.open(chance)
                for _ in range(chance.randint(5, 60)):
                    if self.over.is_set():
                        break
                    frames = [self.mutated(mutator, made) for _ in range(chance.choice((1, 1, 2, 3, 8)))]
                    self.seen["requests"] += len(frames)
                    raw = made.wrap(frames)
                    cut = chance.randrange(len(raw)) if chance.random() < 0.2 else 0
                    if cut:
                        made.send(raw[:cut])
                    made.send(raw[cut:])
                    self.read(who, made, frames)
                # What came late.
                while answer := made.answer(0.3):
                    self.take(who, made, answer, [])
            except (Closed, OSError):
                self.seen["closed"] += 1
                # A node of the ring may be away for a while: its port refuses.
                self.over.wait(0.02)
            except Exception as error:
                with self.guard:
                    self.found.append(f"{who} could not read on: {error!r}")
                self.over.set()
            finally:
                if made:
                    made.close()

    def intruder(self, number):
        chance = random.Random(f"{self.seed} intruder {number}")
        intruder = intruders.Intruder(self, chance, m.Mutator(chance, self.pool, self.gentle, self.holds))
        while not self.over.is_set():
            try:
                self.seen["connections"] += 1
                intruder.once(f"intruder {number}", (net.gateway_inside(), chance.choice(self.ports)), *chance.choice(CELLS))
            except (Closed, OSError):
                self.seen["closed"] += 1
                self.over.wait(0.02)
            except Exception as error:
                with self.guard:
                    self.found.append(f"intruder {number} could not read on: {error!r}")
                self.over.set()

    def listener(self, number):
        """Registered all the time, and asks nothing."""
        chance = random.Random(f"{self.seed} listener {number}")
        while not self.over.is_set():
            try:
                made = self.open(chance, port=self.ports[0])
                made.send(made.wrap([made.frame(cql.REGISTER, cql.string_list(m.EVENTS[:3]), 1)]))
                while not self.over.is_set():
                    answer = made.answer(0.5)
                    if answer:
                        self.take("listener", made, answer, [])
            except (Closed, OSError):
                self.over.wait(0.2)

    def run(self, seconds, fixed=True):
        speaker.libraries()
        self.begun = time.monotonic()
        if fixed:
            self.fixed()
        threads = [threading.Thread(target=self.hunter, args=(n,), daemon=True) for n in range(HUNTERS)]
        threads += [threading.Thread(target=self.intruder, args=(n,), daemon=True) for n in range(INTRUDERS)]
        threads += [threading.Thread(target=self.listener, args=(n,), daemon=True) for n in range(2)]
        for thread in threads:
            thread.start()
        self.over.wait(max(0.0, seconds - (time.monotonic() - self.begun)))
        self.over.set()
        for thread in threads:
            thread.join(10)
        return self

    def says(self):
        return f"seed {self.seed}, {time.monotonic() - self.begun:.0f} s: " + ", ".join(f"{n} {what}" for what, n in sorted(self.seen.items()))

    def nothing(self):
        """That nothing was told, and that enough was asked for this to mean something."""
        if self.found:
            each = {found.split(":")[0]: found for found in reversed(self.found)}
            raise Failed(f"{self.says()}; found {len(self.found)}: " + " | ".join(found[:260] for found in reversed(each.values())))
        for what, least in (("named rows", 20), ("nameless rows", 5), ("errors", 20), ("intrusions", 20)):
            if self.seen[what] < least:
                raise Failed(f"hardly anything was asked: {self.says()}")
        return self.says()


def stir(node, over):
    """Takes a node's port for clients away and gives it back, again and again, so that there are events."""
    while not over.wait(10):
        for what in ("disablebinary", "enablebinary"):
            try:
                node.nodetool(what)
            except (OSError, subprocess.SubprocessError) as error:
                # A busy machine, or the node has died: there are fewer events, and `nodes live` says the rest.
                print(f"  nodetool {what} of node {node.number}: {type(error).__name__}", flush=True)
            over.wait(5)


def seed():
    """The one that the environment names, or a fresh one; printed before anything is sent."""
    chosen = int(os.environ.get("CQLGATE_SEED") or random.SystemRandom().randrange(2 ** 32))
    print(f"  seed {chosen} (CQLGATE_SEED={chosen} makes the same requests)", flush=True)
    return chosen


def fragile(ring):
    """Whether the release's nodes end of what a request says falsely of its own size."""
    return int(ring.version.release.split(".")[0]) < 5


def check(report, suite, ring, gateway, seconds, stirred=False):
    """A hunt of so many seconds, as rows of `report`. Where nodes die of bodies that do not decompress, such come at the end; where they die of
    values that claim more than there is, such are left out."""
    hunt = Hunt(ring, gateway, seed(), gentle=fragile(ring), holds=fragile(ring))
    over, stirrer = threading.Event(), None
    if stirred:
        stirrer = threading.Thread(target=stir, args=(ring.nodes[-1], over), daemon=True)
        stirrer.start()
    try:
        hunt.run(seconds)
    finally:
        over.set()
        if stirrer:
            stirrer.join(60)
    add(report, suite, ring, "nothing told", hunt.nothing)
    add(report, suite, ring, "nodes live", lambda: living(ring))
    if fragile(ring):
        Hunt(ring, gateway, seed(), holds=True).run(15)
        add(report, suite, ring, "not compressed: live", lambda: living(ring))


def living(ring):
    """That no request ended a node's process."""
    dead = [node for node in ring.nodes if node.process.poll() is not None]
    for node in dead:
        frames = [line for line in (node.home / "out.log").read_text(errors="replace").splitlines() if line.startswith("# C ")]
        raise Failed(f"{len(dead)} of {len(ring.nodes)} ended; node {node.number} with {node.process.returncode} {' '.join(frames[:1])}")
    return f"{len(ring.nodes)} nodes"


def counter_check(report, suite, ring, gateway, within=5.0):
    """The hunters alone must find something soon where rewriting is switched off; `gateway` is one that rewrites nothing."""
    def found():
        hunt = Hunt(ring, gateway, seed(), gentle=fragile(ring), holds=fragile(ring)).run(within, fixed=False)
        if not hunt.first or hunt.first - hunt.begun > within:
            raise Failed(f"nothing found within {within} s: {hunt.says()}")
        return f"found after {hunt.first - hunt.begun:.2f} s: {hunt.found[0][:200]}"

    add(report, suite, ring, "off: found", found)


def add(report, suite, ring, assertion, what):
    try:
        report.add(suite, "hunters", f"Cassandra {ring.version.release}", assertion, "ok", what())
    except Failed as failed:
        report.add(suite, "hunters", f"Cassandra {ring.version.release}", assertion, "failed", failed)
