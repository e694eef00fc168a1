"""Commands of `tests/real/run`."""
import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

from . import cache, net
from .kubeapi import Refused
from .program import Died
from .versions import VERSIONS
from .wait import Late


class Stop(Exception):
    """Ctrl-C or SIGTERM."""


def stop(_signal, _frame):
    raise Stop


def cluster(options):
    """A ring to look at: starts it, prints its addresses, keeps it until ctrl-C, `stop` or --for."""
    from .cassandra import CREDENTIALS, Ring

    ring = Ring(options.version, options.nodes, auth=options.auth).start()
    for host_id, node in ring.truth().items():
        print(f"node{node['number']}  {node['address']}:9042  {host_id}  {node['dc']} {node['rack']}  tokens {','.join(node['tokens'])}")
    print(f"namespaces {' '.join(n.namespace for n in ring.nodes)}; reachable from the root namespace; logs in {ring.home}")
    if options.auth:
        print(f"username and password: {CREDENTIALS[0]} {CREDENTIALS[1]}")
    print("ready", flush=True)
    threading.Event().wait(options.seconds)
    return 0


def golden(_options):
    """Records the conversations of tests/golden anew, from real nodes."""
    site = cache.python("golden-python", ("lz4==4.4.5", "python-snappy==0.7.3")).parent.parent
    sys.path[:0] = [str(cache.CHECKOUT / "tests"), *map(str, site.glob("lib/python*/site-packages"))]
    from golden import capture

    capture.record()
    return 0


def tools(_options):
    """Builds the control plane's programs and Helm, and does nothing else: CI starts it beside cargo."""
    from . import kubetools

    for place in kubetools.prepare():
        print(place)
    return 0


def suite(options):
    """Runs a suite and prints its table; the exit code says whether everything holds."""
    from . import suites

    more = {name: tuple(value.split(",")) for name, value in
            (("names", options.drivers), ("steps", options.steps), ("which", options.releases)) if value}
    if options.tables:
        more["tables"] = options.tables
    if options.rotations:
        more["rotations"] = options.rotations
    if options.seconds:
        more["seconds"] = options.seconds
    begun = time.monotonic()
    report = suites.run(options.suite, options.direct, **more)
    seconds = time.monotonic() - begun
    print(f"{len(report.failures())} failed, {seconds / 60:.1f} min")
    if options.record:
        Path(options.record).write_text(report.markdown(f"tests/real/run {options.suite}", seconds))
    return 1 if report.failures() else 0


def end(_options):
    """Ends the rig that is running, whatever it does, and clears what is left of it."""
    try:
        held = net.lock()
    except net.Busy as busy:
        os.kill(int(str(busy).split()[-1]), signal.SIGTERM)
        print(f"told {str(busy).split()[-1]} to stop")
        return 0
    net.clear()
    held.close()
    return 0


SUITES = {
    "usual": "every driver in one cell, uncompressed and in the version that it chooses itself where it can, then the cluster's life with all of them; what `run` alone does",
    "ci": "the short share: Java 4, Python, scylla; one death, one address move; a cell with a password and TLS, one with a certificate too",
    "matrix": "CA1 to CA4 in every version and compression that each driver speaks",
    "secured": "a cluster with passwords, then with TLS on both sides",
    "versions": "Java 4 and Python against Cassandra 4.1, 4.0, 6.0-alpha2 and 3.11",
    "kubernetes": "a control plane, the chart, the nodes as a StatefulSet's pods: CA1 to CA4, then what Kubernetes does to them",
    "kubernetes-ci": "the short share: every manifest checked by the apiserver, an address for each node and for each part of the ports, CA1 to CA4, a pod replaced, two gateways with one map, an expired watch, a frozen API, the rights",
    "kubernetes-api": "the Kubernetes API killed, frozen, unreachable, throttling, forbidding, and without its slices, with reads going on",
    "datacenters": "two data centers of two nodes each, of which the gateway serves one: the other hidden, and kept; Java 4 and Python",
    "front": "HAProxy with PROXY v2 before the gateway, plain and TLS: who is who, a list, a renewed certificate; GRACEFUL_DISCONNECT",
    "certified": "TLS 1.3 and 1.2, clients' certificates, nodes that ask for the gateway's, plain and TLS on one port; nodes' certificates as people make them",
    "identities": "nodes that know people by certificates (MutualTlsAuthenticator), a client that is mapped, one that is not, and the gateway's own",
    "rotate": "1,000 server certificates and 100 CAs of clients, one after the other, under clients that come all the time",
    "rolled": "two gateways behind HAProxy, rolled one after the other while four drivers read, with retries and without; and two HAProxies in their place",
    "ddl": "a table is created and used at once, by the drivers that see one node: nodes that let everybody in, a login of the gateway's, nodes that are slow to agree, and the same without a wait",
    "addresses": "an address for each node, so that every driver sees all of them; and paths: clients inside who are told the nodes' own addresses, clients outside, and a private endpoint's",
    "leak": "mutated requests by several connections at once, every answer searched for the nodes' own addresses; and the same with rewriting off, which must find one",
    "flood": "20,000 strangers from 200 addresses while a driver works, beside the same flood against HAProxy",
    "off": "the counter-check: with rewriting switched off everything should fail",
    "all": "matrix, secured, usual and datacenters",
}


def parse(arguments):
    parser = argparse.ArgumentParser(prog="tests/real/run", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("cluster", help=cluster.__doc__, description=cluster.__doc__)
    one.add_argument("--version", default="5.0", choices=VERSIONS)
    one.add_argument("--nodes", type=int, default=3)
    one.add_argument("--auth", action="store_true")
    one.add_argument("--for", dest="seconds", type=float, metavar="SECONDS")
    one.set_defaults(call=cluster, locked=True)
    commands.add_parser("golden", help=golden.__doc__, description=golden.__doc__).set_defaults(call=golden, locked=True)
    commands.add_parser("kubernetes-tools", help=tools.__doc__, description=tools.__doc__).set_defaults(call=tools, locked=False)
    commands.add_parser("stop", help=end.__doc__, description=end.__doc__).set_defaults(call=end, locked=False)
    for name, what in SUITES.items():
        one = commands.add_parser(name, help=what, description=what)
        one.add_argument("--direct", action="store_true", help="no gateway: the drivers meet the nodes, to tell whose fault it is")
        one.add_argument("--drivers", help="only these, with commas between")
        one.add_argument("--steps", help="only these: usual has death,control,growth,move,schema,end; kubernetes replaced,killed,scaled,rolled,flapping,hostname,cutoff,impostor,maps,racks,k8ssandra,schema,end; kubernetes-api its own, which it prints")
        one.add_argument("--releases", help="versions: only these of 4.1,4.0,6.0,3.11; leak: of 5.0,4.1")
        one.add_argument("--seconds", type=float, help="leak: all of it, 600 unless told; flood: each flood, 120 unless told; CQLGATE_SEED=N for the same choices again")
        one.add_argument("--rotations", type=int, help="rotate: of the server's certificate, 1000 unless told; a tenth as many of the clients' CA")
        one.add_argument("--tables", type=int, help="ddl: in each cell, 200 unless told")
        one.add_argument("--record", metavar="FILE", help="write the table as Markdown, too")
        one.set_defaults(call=suite, suite=name, locked=True)
    return parser.parse_args(arguments or ["usual"])


def main(arguments=None):
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if os.geteuid() != 0:
        print("network namespaces need root", file=sys.stderr)
        return 2
    if not options.locked:
        return options.call(options)
    try:
        held = net.lock()
    except net.Busy as busy:
        print(busy, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        net.clear()
        net.bridges()
        return options.call(options)
    except Stop:
        print("stopped")
        return 130
    except (Late, Died, cache.Missing, Refused) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        net.clear()
        held.close()
