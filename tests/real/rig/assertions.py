"""What every driver must show, CA1 to CA9. Each check returns a few words for the table, or raises Failed with what it saw.

Truth comes from the nodes themselves, over direct connections: who has which host_id, tokens, dc and rack, and who owns
which key. The gateway is believed in one thing only: which of its ports leads to which node address.
"""
import time

from . import schema
from .wait import Late, until


class Failed(Exception):
    """An assertion that does not hold."""


def short(host_id):
    return str(host_id)[:8]


class Expectation:
    """A picture of the ring at one moment."""

    def __init__(self, ring, gateway):
        self.truth = ring.truth()
        self.advertised = gateway.advertised()
        self.owners = schema.owners(ring, self.truth)


def ca1(client):
    """No packet to anything but the gateway."""
    leaked = client.leaked()
    if leaked:
        raise Failed(f"{leaked} packets tried to leave for other addresses")
    return "0 packets"


def check_nodes(program, expected):
    single = program.driver.view == "single node"
    said = program.ask("nodes")
    seen = {n["host_id"]: n for n in said["nodes"]}
    if len(seen) != len(said["nodes"]):
        raise Failed(f"a host_id twice: {[(n['host_id'], n['port']) for n in said['nodes']]}")
    wanted = expected.advertised
    if single:
        if not seen:
            raise Failed("no node at all")
        wanted = {h: a for h, a in wanted.items() if h in seen}
    got = {h: f"{n['address']}:{n['port']}" for h, n in seen.items()}
    if got != wanted:
        raise Failed(f"nodes are {sorted(got.values())} ({', '.join(map(short, got))}), expected {sorted(map(str, wanted.values()))}")
    for host_id, node in seen.items():
        true = expected.truth[host_id]
        for name in ("dc", "rack"):
            if node[name] != true[name]:
                raise Failed(f"{short(host_id)} has {name} {node[name]}, in truth {true[name]}")
        if sorted(node["tokens"]) != true["tokens"]:
            raise Failed(f"{short(host_id)} has tokens {node['tokens']}, in truth {true['tokens']}")
    words = f"{len(seen)} node{'s' if len(seen) > 1 else ''}: {', '.join(sorted(got.values()))}"
    # Only Python's driver tells which table it reads.
    return words + (f", from {'peers_v2' if said['peers_v2'] else 'peers'}" if "peers_v2" in said else ""), said


def ca2(program, expected):
    """The driver's nodes are the advertised ones, with host_id, dc, rack and tokens as the nodes have them."""
    return check_nodes(program, expected)[0]


def ca3(program, expected):
    """Asked through the driver's own pool for it, each node says the host_id that the driver knows it by."""
    pinned = program.ask("pin")["pinned"]
    wrong = [p for p in pinned if p["says"] != p["host_id"]]
    if wrong:
        raise Failed("; ".join(f"{short(p['host_id'])} says {p['says'][:120]}" for p in wrong))
    if program.driver.view != "single node" and {p["host_id"] for p in pinned} != set(expected.truth):
        raise Failed(f"only {len(pinned)} of {len(expected.truth)} nodes could be asked")
    return f"{len(pinned)} agree"


def ca4(program, expected):
    """300 keys, one replica each: the driver names the owner, and the owner it is that answers."""
    keys = program.ask("keys", 120)["keys"]
    if program.driver.view == "single node":
        known = {n["host_id"] for n in program.ask("nodes")["nodes"]}
        wrong = [k for k, _, coordinator in keys if coordinator not in known]
        if wrong or not keys:
            raise Failed(f"{len(wrong)} of {len(keys)} keys answered by {next((c for _, _, c in keys if c not in known), '')[:120]}")
        return f"{len(keys)} answered"
    named = [k for k, replicas, _ in keys if program.driver.names_owners and replicas != [expected.owners[k]]]
    if named:
        raise Failed(f"the token map names another owner for {len(named)} of {len(keys)} keys")
    missed = [(k, c) for k, _, c in keys if c != expected.owners[k]]
    if missed:
        raise Failed(f"{len(missed)} of {len(keys)} keys answered by {str(missed[0][1])[:120]} and not by their owner")
    return f"{len(keys)} of {len(keys)}" + ("" if program.driver.names_owners else ", by who answered")


def eventually(what, check, seconds):
    """`check` may fail for `seconds`; after that its last failure is the answer."""
    last = []

    def once():
        try:
            return check() or True
        except Failed as failed:
            last[:] = [failed]
            return None

    begun = time.monotonic()
    try:
        found = until(what, once, seconds, every=0.3)
    except Late:
        raise Failed(f"after {seconds} s: {last[0] if last else 'never'}") from None
    return found, time.monotonic() - begun


def all_right(program, expected):
    """CA2 to CA4 in one go."""
    ca2(program, expected), ca3(program, expected), ca4(program, expected)


def reads(program, errors_allowed=0):
    """Begun reads end here: how many went well, by which nodes."""
    said = program.ask("stop")
    if said["errors"] > errors_allowed or not said["ok"]:
        raise Failed(f"{said['errors']} of {said['ok'] + said['errors']} reads failed: {str(said['first'])[:200]}")
    return said


def some_reads(program):
    """A short burst, wholly good."""
    program.ask("start")
    time.sleep(0.5)  # the length of the burst, nothing is waited for
    return reads(program)


def reported_down(program, host_id):
    node = next((n for n in program.ask("nodes")["nodes"] if n["host_id"] == host_id), None)
    if node and node["up"]:
        raise Failed(f"{short(host_id)} is still up for the driver")


def traffic_reaches(program, host_id):
    if not some_reads(program)["coordinators"].get(host_id):
        raise Failed(f"no read is answered by {short(host_id)}")


def passed_by(program, host_id):
    if some_reads(program)["coordinators"].get(host_id):
        raise Failed(f"a read is answered by {short(host_id)}, which is not there")


def ca9(program):
    """CREATE TABLE through the driver, and its own agreement check, within 10 s."""
    begun = time.monotonic()
    said = program.ask(f"ddl {program.driver.name.replace('-', '_')}_{int(begun)}")
    took = time.monotonic() - begun
    if said["error"]:
        raise Failed(str(said["error"])[:200])
    if said["agreed"] is False:
        raise Failed("the driver finds no agreement")
    if took > 10:
        raise Failed(f"took {took:.1f} s")
    return f"{took:.1f} s"
