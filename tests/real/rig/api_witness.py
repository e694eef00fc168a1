"""What is seen from outside of a gateway whose Kubernetes API is in trouble: its metrics, its map, what it asked of the apiserver,
what the drivers were told of nodes. A fault that none of these shows was not there.
"""
import calendar
import collections
import re
import time

from . import assertions as a
from .kubeapi import AGENT
from .wait import until

# Label `resource` of the watches' metrics.
WATCHES = ("endpointslices", "pods", "service", "load_balancer")
LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')
# The apiserver sends a bookmark about once a minute: a watch in which nothing happens hears no more than that.
FRESH = 75
# Each watch reads its list again after this at the earliest, whatever happens, in seconds.
RENEWED = 225
# So many seconds after a node was first up the gateway's map is another one without showing anything new: it then counts on all other
# nodes' having its row. Two more, because times are told in whole seconds.
SETTLED = 5 + 2
# What a driver is told of a node, as a pattern of the kinds of its events: one that was away and came back, one that is new, one that left.
RETURNED, JOINED, LEFT = "down up", "add( up)?", "(down )?remove"


class Metrics:
    """One scrape."""

    def __init__(self, gateway):
        found = filter(None, map(LINE.match, gateway.admin("/metrics").splitlines()))
        self.samples = [(name, dict(LABEL.findall(labels or "")), float(value)) for name, labels, value in map(re.Match.groups, found)]

    def sum(self, name, **labels):
        return sum(value for its, has, value in self.samples if its == f"cqlgate_{name}" and labels.items() <= has.items())

    def connected(self):
        """The watches that hear the API."""
        return {has["resource"] for name, has, value in self.samples if name == "cqlgate_kubernetes_watch_connected" and value == 1}

    def failures(self):
        """(resource, reason) → how often."""
        return collections.Counter({(has["resource"], has["reason"]): int(value) for name, has, value in self.samples
                                    if name == "cqlgate_kubernetes_watch_failures_total" and value})

    def staleness(self):
        """Seconds since discovery heard of the cluster."""
        return time.time() - self.sum("discovery_refreshed_timestamp_seconds")


def settled(gateway):
    """Every node that is up has been for long enough: the map is what it is going to be while nothing happens."""
    since = [row["since"] for row in gateway.topology()["nodes"] if row["state"] == "up"]
    return all(time.time() - calendar.timegm(time.strptime(one, "%Y-%m-%dT%H:%M:%SZ")) > SETTLED for one in since)


class Witness:
    """Looks at everything once the map is settled; what came later is compared with that."""

    def __init__(self, gateway, programs):
        until("the map is settled", lambda: settled(gateway), 30)
        self.gateway, self.plane, self.programs = gateway, gateway.plane, programs
        self.metrics, self.ports = Metrics(gateway), gateway.ports()
        self.generation = gateway.topology()["generation"]
        self.log = len(self.lines())
        self.records = len(self.plane.audit())
        self.begun = time.monotonic()
        self.events = {program: len(program.events) for program in programs}

    def lines(self):
        return (self.gateway.home / "out.log").read_text(errors="replace").splitlines()

    def failed(self, reasons, resource="endpointslices"):
        """How often the watch of `resource` has failed for one of `reasons` since then."""
        news = Metrics(self.gateway).failures() - self.metrics.failures()
        return sum(count for (its, why), count in news.items() if its == resource and why in reasons)

    def failing(self, *reasons, resources=WATCHES, seconds=30):
        """Until each watch has failed so and none is connected; says how often."""
        def all_of():
            return all(self.failed(reasons, one) for one in resources) and not Metrics(self.gateway).connected() & set(resources)
        until(f"{', '.join(resources)} fail with {' or '.join(reasons)}", all_of, seconds)
        return f"{sum(self.failed(reasons, one) for one in resources)} failures ({', '.join(reasons)})"

    def said(self, *words):
        """The gateway's log has a line with all of `words`."""
        if not any(all(word in line for word in words) for line in self.lines()[self.log:]):
            raise a.Failed(f"no line of the log has {words}")

    def asked(self):
        """(verb, resource, code) → how often the gateway asked that of the apiserver and had this answer."""
        found = collections.Counter()
        for record in self.plane.audit(f":{self.gateway.release.namespace}:", self.records):
            if record.get("userAgent", "").startswith(AGENT):
                continue
            # A watch is told twice: when it begins and when it ends.
            if record["stage"] == ("ResponseComplete" if record["verb"] != "watch" or record["responseStatus"].get("code") != 200 else "ResponseStarted"):
                found[record["verb"], record.get("objectRef", {}).get("resource"), record["responseStatus"].get("code")] += 1
        return found

    def lists(self):
        return sum(count for (verb, _, _), count in self.asked().items() if verb == "list")

    def moderate(self, lists):
        """No storm: at most so many lists beside those that come with time and those, further and further apart, for a name that still leads
        elsewhere; and in all one request a second after the first twenty for each watch."""
        seconds = int(time.monotonic() - self.begun)
        asked, requests = self.asked(), 20 * len(WATCHES) + seconds
        lists += len(WATCHES) * (1 + seconds // RENEWED) + 2 * (1 + seconds // 5).bit_length()
        if self.lists() > lists or sum(asked.values()) > requests:
            raise a.Failed(f"{self.lists()} lists of {lists}, {sum(asked.values())} requests of {requests}: {dict(asked)}")
        return f"{self.lists()} lists, {sum(asked.values())} requests"

    def recovered(self, seconds, resources=WATCHES):
        """Until every watch is connected and the news are fresh again; how long that took."""
        begun = time.monotonic()

        def heard():
            metrics = Metrics(self.gateway)
            return metrics.connected() >= set(resources) and metrics.staleness() < FRESH
        until("every watch hears the API again", heard, seconds, during=self.gateway.alive)
        return f"heard again after {time.monotonic() - begun:.1f} s"

    def same_ports(self):
        if self.gateway.ports() != self.ports:
            raise a.Failed(f"ports were {self.ports}, are {self.gateway.ports()}")

    def unmoved(self, by=("client", "node", "gateway")):
        """Nothing has changed for clients, and no connection of theirs was closed by one of these."""
        self.same_ports()
        generation = self.gateway.topology()["generation"]
        if generation != self.generation:
            raise a.Failed(f"generation was {self.generation}, is {generation}")
        now = Metrics(self.gateway)
        closed = sum(now.sum("connections_closed_total", by=one) - self.metrics.sum("connections_closed_total", by=one) for one in by)
        if closed:
            raise a.Failed(f"{closed:.0f} connections were closed")

    def told(self, program, moved=None):
        """What the driver was told of nodes: of each address in `moved` just what its pattern says, of all others nothing."""
        def once():
            found = {address: [] for address in moved or {}}
            for event in program.events[self.events[program]:]:
                found.setdefault(event["address"], []).append(event["event"])
            for address, kinds in found.items():
                wanted = (moved or {}).get(address, "")
                if not re.fullmatch(wanted, " ".join(kinds)):
                    raise a.Failed(f"told of {address}: {' '.join(kinds) or 'nothing'}; expected: {wanted or 'nothing'}")
            return "; ".join(f"told of {address.rsplit(':')[-1]}: {' '.join(kinds)}" for address, kinds in found.items()) or "told of no node"
        # A driver uses a node some time before it says so.
        return a.eventually("the driver is told", once, 10)[0]
