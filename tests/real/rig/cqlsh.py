"""cqlsh: it is the Python driver, asked through its own front door."""
import re
import subprocess

from . import assertions as a
from . import drivers

QUERIES = ("SELECT host_id, rpc_address, rpc_port FROM system.local; "
           + 2 * "SELECT host_id, native_address, native_port FROM system.peers_v2; " + "DESCRIBE CLUSTER")


def run(client, contact, text, credentials=None):
    host, port = contact.split(":")
    login = ["-u", credentials[0], "-p", credentials[1]] if credentials else []
    command = ["ip", "netns", "exec", client.full, *map(str, drivers.cqlsh()), *login, host, port, "--connect-timeout", "20", "-e", text]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        raise a.Failed("not done after 120 s") from None
    if done.returncode != 0:
        raise a.Failed(f"exit {done.returncode}: {(done.stderr or done.stdout)[-300:]}")
    return done.stdout


def nodes(client, expected, contact, credentials=None):
    """CA2, as far as cqlsh shows it."""
    got = {}
    # Through one address all nodes are on cqlsh's white list of addresses: statements go to them in turn, so that one
    # run can show a node's own row and, from another node, its row as a peer.
    for _ in range(5):
        out = run(client, contact, QUERIES, credentials)
        for host_id, text in re.findall(r"([0-9a-f]{8}-[0-9a-f-]{27})\s*\|\s*([0-9.]+\s*\|\s*\d+)", out):
            address = ":".join(part.strip() for part in text.split("|"))
            if got.setdefault(host_id, address) != address:
                raise a.Failed(f"{host_id} is {got[host_id]} and {address}")
        if len(got) == len(expected.advertised):
            break
    if got != expected.advertised:
        raise a.Failed(f"shows {got}, expected {expected.advertised}")
    return f"{len(got)} nodes"


def copy(client, expected, contact, scratch, credentials=None):
    """A table out into a file and back."""
    file = scratch / "t.csv"
    run(client, contact, f"COPY k3.t TO '{file}' WITH HEADER=true", credentials)
    rows = len(file.read_text().splitlines()) - 1 if file.exists() else 0
    if rows != len(expected.owners):
        raise a.Failed(f"COPY wrote {rows} rows, expected {len(expected.owners)}")
    run(client, contact, f"COPY k3.t FROM '{file}' WITH HEADER=true", credentials)
    return f"{rows} rows there and back"
