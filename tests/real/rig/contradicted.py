"""Who says what the gateway knows better: a node that is cut off from the others and calls them down, and a pod that answers as a node that there is.

Steps of `kubernetes_life`.
"""
import subprocess
import sys

from . import assertions as a
from . import net
from .api_witness import Witness
from .wait import until

# What passes each connection on to a node, so that it answers as that one.
RELAY = """
import asyncio, sys
async def pump(source, sink):
    try:
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
    except OSError:
        pass
    sink.close()
async def serve(reader, writer):
    there = await asyncio.open_connection(sys.argv[1], 9042)
    await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
async def main():
    async with await asyncio.start_server(serve, "0.0.0.0", 9042) as server:
        await server.serve_forever()
asyncio.run(main())
"""
IMPOSTOR = "c-7"


def cut(full, is_cut):
    """Whether namespace `full` hears nothing of what nodes say to each other, and they nothing of it."""
    net.nft(full, "table inet peers { }")
    net.nft(full, "delete table inet peers")
    if is_cut:
        net.nft(full, """table inet peers {
            chain hears {
                type filter hook input priority 0
                tcp dport 7000 drop
                tcp sport 7000 drop
            }
        }""")


def cutoff(life):
    """Node 1, where control connections are, is cut off from its peers and calls them down: drivers are told nothing."""
    node = life.ring.nodes[0]

    def calls(state):
        said = [line.split()[0] for line in node.nodetool("status").splitlines() if line[:2] in ("UN", "DN")]
        return said.count(state) >= len(life.ring.nodes) - (state == "DN")

    def act():
        cut(node.namespace, True)
        try:
            until("node 1 calls the others down", lambda: calls("DN"), 120)
        finally:
            cut(node.namespace, False)
        until("node 1 calls them up again", lambda: calls("UN"), 120)

    # No reads: node 1 answers some with a timeout until it has noticed that it is alone.
    witness, held = Witness(life.gateway, life.programs), life.held_downs()
    act()
    expected, count = life.expected(), life.held_downs() - held

    def check(program):
        if count < 1:
            raise a.Failed("the gateway held no DOWN: no control connection was at node 1, or the node did not say so")
        told = witness.told(program)
        # Drivers may still be leaving what an earlier step has closed.
        witness.unmoved(by=("node", "gateway"))
        a.eventually("all right", lambda: a.all_right(program, expected), life.wait)
        return f"{told}, no connection closed; {count} DOWN held"
    life.judge("cutoff", check)


def impostor(life):
    """A pod that somebody made, with the Service's labels, answers as node 2: node 2 keeps what is its own."""
    pod, node = life.pod(1)
    host_id = str(node.open()["host_id"])
    address = next(life.fresh)
    full = net.namespace("impostor")
    net.attach(full, net.NODE_BRIDGE, f"{address}/24", default=f"{net.NODES}.1")
    relay = subprocess.Popen(["ip", "netns", "exec", full, sys.executable, "-c", RELAY, node.address])
    row = {}

    def shown():
        rows = [one for one in life.gateway.topology()["nodes"] if one["name"] == IMPOSTOR]
        row.update(rows[0] if rows else {})
        return rows

    def act():
        life.plane.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: {IMPOSTOR}, namespace: {life.kubelet.namespace}, labels: {{app: cassandra}}}}
spec:
  containers: [{{name: c, image: "example.com/c:1", ports: [{{name: cql, containerPort: 9042}}]}}]
""")
        life.kubelet.place(IMPOSTOR, address)
        life.kubelet.ready(IMPOSTOR)
        until("it is in the slices", lambda: IMPOSTOR in life.kubelet.endpoints("cassandra"), 30)
        until("the gateway knows it", shown, 30)
        said = f"its host_id {host_id} is that of {pod}"
        until("the gateway says whose host_id that is", lambda: any(IMPOSTOR in line and said in line for line in life.log()), 30)
        shown()

    try:
        life.loaded("impostor", act, {IMPOSTOR: ""})
        life.judge("impostor: never up", lambda _: never_up(row))
    finally:
        relay.kill()
        life.kubelet.forget(IMPOSTOR)
    until("the gateway has forgotten it", lambda: all(row["state"] == "gone" for row in shown()), 120)


def never_up(row):
    if row["state"] != "pending" or row.get("host_id"):
        raise a.Failed(f"it is {row}")
    return f"pending at {row['address']}"
