"""Strangers by the thousand from many addresses, while a real driver works: through the gateway, then through HAProxy with the same limits.

The strangers stand in a namespace of their own with all their addresses; `flooder.py` is what they do. The driver is there before them.
HAProxy waits for a first request for as long as the gateway does, before it dials; else each stranger would cost the node a connection.
"""
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter

from . import cache, certificates, net
from .assertions import Failed
from .drivers import DRIVERS
from .gateway import FIRST_PORT, Gateway
from .haproxy import HAProxy
from .program import Died, Program
from .wait import Late, until

STRANGERS, SOURCES, PROCESSES = 20_000, 200, 2
CONNECTIONS, PLACES, SETUP = 9_000, 9_000, 10
MEMORY = 512 * 1024 * 1024
# What the allocator may keep of the flood's peak once everybody has gone.
KEPT = 48 * 1024
# Gauges that must be as they were before.
GAUGES = re.compile(r"^(cqlgate_(?:stage_connections|connections_open|held_bytes|hold_waiting|memory_level|node_state|driver_connections_open)(?:\{[^}]*\})?) (\S+)$", re.M)
REFUSED = re.compile(r"^cqlgate_(?:connections_refused_total|stage_full_total)\{([^}]*)\} (\S+)$", re.M)
ENDED = re.compile(r"^cqlgate_(?:tasks_ended_total|workers_stuck_total)(?:\{[^}]*\})? (\S+)$", re.M)


class Flooded(Gateway):
    """The gateway with limits that a machine's usual number of descriptors leaves room for."""

    def __init__(self, ring, tls):
        self.clients_tls = tls
        super().__init__(ring, release=True)

    def yaml(self, credentials):
        text = super().yaml(credentials)
        text += (f"limits:\n  connections: {CONNECTIONS}\n  memory: {MEMORY // 2**20}MiB\n  stages:\n    accepted: {{places: {PLACES}}}\n"
                 f"timeouts: {{setup: {SETUP}s}}\n")
        if self.clients_tls:
            text += f"tls:\n  clients: {{certificate: {self.clients_tls}/gateway.pem, key: {self.clients_tls}/gateway.key}}\n"
        return text


class Instead(HAProxy):
    """HAProxy in the gateway's place: its namespace, its address, its first port."""

    def __init__(self, ring, tls):
        self.namespace = net.gateway_namespace()
        home = cache.RUN / "haproxy"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        crt = ""
        if tls:
            (home / "both.pem").write_text((tls / "gateway.pem").read_text() + (tls / "gateway.key").read_text())
            crt = f" ssl crt {home}/both.pem"
        super().__init__(
            self.namespace, home,
            f"global\n  nbthread {os.cpu_count()}\n  maxconn {CONNECTIONS}\ndefaults\n  mode tcp\n  maxconn {CONNECTIONS}\n  timeout connect 5s\n"
            f"  timeout client 1h\n  timeout server 1h\nlisten n1\n  bind {net.GATEWAY}:{FIRST_PORT}{crt}\n"
            f"  tcp-request inspect-delay {SETUP}s\n  tcp-request content accept if {{ req.len ge 9 }}\n  tcp-request content reject\n"
            f"  server s {ring.nodes[0].address}:9042\n", f"sport = :{FIRST_PORT}")


def status(pid, name):
    text = open(f"/proc/{pid}/status").read()
    return int(re.search(rf"^{name}:\s+(\d+)", text, re.M).group(1))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Strangers:
    """The flood, in as many processes as their descriptors need."""

    def __init__(self, seconds, tls, seed):
        self.full = net.namespace("flood")
        net.attach(self.full, net.CLIENT_BRIDGE, f"{net.CLIENTS}.40/24")
        sources = [f"{net.CLIENTS}.{50 + n}" for n in range(SOURCES)]
        batch = "".join(f"addr add {source}/24 dev eth0\n" for source in sources)
        subprocess.run(["ip", "-n", self.full, "-batch", "-"], input=batch, text=True, check=True)
        self.processes = []
        for number in range(PROCESSES):
            asked = {"target": [net.GATEWAY, FIRST_PORT], "sources": sources[number::PROCESSES], "connections": STRANGERS // PROCESSES,
                     "ramp": 1000, "rate": 250, "seconds": seconds, "tls": tls, "seed": seed + number}
            self.processes.append(subprocess.Popen(
                ["ip", "netns", "exec", self.full, "python3", str(cache.HERE / "rig/flooder.py"), json.dumps(asked)],
                stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=raise_descriptors))

    def wait(self, seconds):
        """What all of them have counted."""
        seen = Counter()
        for process in self.processes:
            out, _ = process.communicate(timeout=seconds)
            for line in map(json.loads, out.splitlines()):
                seen[f"{line.pop('event')}"] += 1
                seen.update({name: value for name, value in line.items() if name != "after"})
        if seen["end"] != PROCESSES:
            raise Failed(f"the strangers ended early: {dict(seen)}")
        return seen


def raise_descriptors():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def driver(tls):
    """Python's, which asks only the port that it was told: behind HAProxy it knows no other that it could reach."""
    client = net.Client("python", 1)
    ca = tls / "ca.pem" if tls else None
    return Program(DRIVERS["python"], client, [f"{net.GATEWAY}:{FIRST_PORT}"], 4, ca=ca, only=True)


class Peak(threading.Thread):
    """The most of memory and descriptors that a process was seen with."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.over, self.rss, self.descriptors = pid, threading.Event(), 0, 0
        self.start()

    def run(self):
        while not self.over.wait(0.5):
            try:
                self.rss = max(self.rss, status(self.pid, "VmRSS"))
                self.descriptors = max(self.descriptors, descriptors(self.pid))
            except (OSError, AttributeError):
                return


def under_flood(stand, seconds, tls, seed):
    """(what the driver says, what the strangers say, the peaks) of one flood."""
    program = driver(tls)
    try:
        peak = Peak(stand.process.pid)
        strangers = Strangers(seconds, bool(tls), seed)
        program.ask("start")
        seen = strangers.wait(seconds + 60)
        said = program.ask("stop", 60)
        peak.over.set()
        return said, seen, peak
    finally:
        program.quit()


def words(said):
    return f"{said['ok']} reads, {said['errors']} failed{' (' + said['first'] + ')' if said['first'] else ''}, p50 {said['p50']:.1f} ms, p99 {said['p99']:.1f} ms"


def gateway(stand, seconds, tls, seed, add):
    """The flood against the gateway; its p99."""
    pid = stand.process.pid
    # What the first connections leave behind in memory is there before the baseline is taken.
    first = driver(tls)
    first.quit()
    before_metrics = until("the gateway is at rest", lambda: at_rest(stand), 30)
    before = status(pid, "VmRSS"), descriptors(pid), status(pid, "Threads")
    said, seen, peak = under_flood(stand, seconds, tls, seed)
    after = stand.admin("/metrics")
    refused = {labels: float(n) for labels, n in REFUSED.findall(after)}
    for labels, n in REFUSED.findall(before_metrics):
        refused[labels] -= float(n)
    refused = {labels: int(n) for labels, n in refused.items() if n}

    def counted():
        if seen["peak"] < 0.9 * min(STRANGERS, PLACES):
            raise Failed(f"the flood was none: {dict(seen)}")
        if not refused:
            raise Failed(f"nothing was counted as refused; strangers: {dict(seen)}")
        return f"{refused}; strangers: {dict(seen)}"

    def memory():
        if peak.rss * 1024 > MEMORY:
            raise Failed(f"RSS was {peak.rss // 1024} MiB")
        return f"RSS at most {peak.rss // 1024} MiB of {MEMORY // 2**20}, {peak.descriptors} descriptors"

    def baseline():
        def same():
            metrics = stand.admin("/metrics")
            now = status(pid, "VmRSS"), descriptors(pid), status(pid, "Threads")
            fine = (dict(GAUGES.findall(metrics)) == dict(GAUGES.findall(before_metrics)) and ENDED.findall(metrics) == ENDED.findall(before_metrics)
                    and now[0] <= before[0] + KEPT and now[1] <= before[1] and now[2] <= before[2])
            last[:] = [now, {k: v for k, v in GAUGES.findall(metrics) if dict(GAUGES.findall(before_metrics)).get(k) != v}]
            return fine and now

        last = []
        try:
            now = until("back to the baseline", same, 60, every=1)
        except Late:
            raise Failed(f"KiB, descriptors, threads {before} before, {last[0]} a minute after; gauges that differ: {last[1]}") from None
        return f"KiB, descriptors, threads {before} before, {now} after; all gauges as before"

    def requests():
        if said["errors"] or said["ok"] < 100:
            raise Failed(words(said))
        return words(said)

    for name, what in (("no failure", requests), ("counted", counted), ("memory", memory), ("baseline", baseline)):
        add(name, what)
    return said


def at_rest(stand):
    metrics = stand.admin("/metrics")
    open_now = sum(float(n) for name, n in GAUGES.findall(metrics) if "connections_open" in name)
    return metrics if not open_now else None


def run(report, ring, seconds, factor=3.0):
    seed = int(os.environ.get("CQLGATE_SEED") or 1)
    keys = certificates.make(cache.RUN / "certificates")
    for tls in (None, keys):
        cell = "TLS" if tls else "plain"

        def add(assertion, what, cell=cell):
            try:
                report.add("flood", "python", cell, assertion, "ok", what())
            except (Failed, Died) as failed:
                report.add("flood", "python", cell, assertion, "failed", failed)

        try:
            stand = Flooded(ring, tls).start()
            ours = gateway(stand, seconds, tls, seed, add)
            stand.stop(signal.SIGKILL)
            stand = Instead(ring, tls)
            theirs, seen, peak = under_flood(stand, seconds, tls, seed)
            stand.stop()
        except (Failed, Died, Late, OSError, subprocess.TimeoutExpired) as failed:
            report.add("flood", "python", cell, "p99", "failed", failed)
            continue

        def ratio():
            text = f"{ours['p99'] / theirs['p99']:.2f} of HAProxy's; HAProxy: {words(theirs)}, RSS {peak.rss // 1024} MiB, strangers: {dict(seen)}"
            if ours["p99"] > factor * theirs["p99"]:
                raise Failed(text)
            return text

        add("p99", ratio)
