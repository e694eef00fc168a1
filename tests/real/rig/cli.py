"""Commands of `tests/real/run`."""
import argparse
import os
import signal
import sys
import threading

from . import cache, net
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
    commands.add_parser("stop", help=end.__doc__, description=end.__doc__).set_defaults(call=end, locked=False)
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
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
    except (Late, cache.Missing) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        net.clear()
        held.close()
