"""Who says what the gateway knows better: a node that is cut off from the others and calls them down, and pods that somebody made.

Steps of `kubernetes_life`.
"""
import subprocess
import sys

from . import assertions as a
from . import net
from .api_witness import Witness
from .wait import until

# What answers as a node that wants a login, and writes down what it is sent: a line for each frame, its opcode and its body.
COLLECTOR = """
import asyncio
CLASS = b"org.apache.cassandra.auth.PasswordAuthenticator"
SAYS = {5: (6, b"\\0\\0"), 1: (3, len(CLASS).to_bytes(2, "big") + CLASS)}
async def serve(reader, writer):
    try:
        while True:
            head = await reader.readexactly(9)
            body = await reader.readexactly(int.from_bytes(head[5:], "big"))
            print(head[4], body.hex(), flush=True)
            opcode, answer = SAYS.get(head[4], (16, b"\\xff\\xff\\xff\\xff"))
            writer.write(bytes([head[0] | 0x80, 0, *head[2:4], opcode]) + len(answer).to_bytes(4, "big") + answer)
    except (OSError, EOFError):
        pass
    writer.close()
async def main():
    async with await asyncio.start_server(serve, "0.0.0.0", 9042) as server:
        await server.serve_forever()
asyncio.run(main())
"""
# One of a name of the StatefulSet's, and one of a name of its own.
IMPOSTORS = ("cassandra-7", "c-7")


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
    """Pods that somebody made, with the Service's labels, ask for the gateway's password: they are hidden, and get no login."""
    started = []
    for pod in IMPOSTORS:
        address = next(life.fresh)
        full = net.namespace(pod)
        net.attach(full, net.NODE_BRIDGE, f"{address}/24", default=f"{net.NODES}.1")
        said = life.gateway.home / f"{pod}.frames"
        with open(said, "wb") as out:
            process = subprocess.Popen(["ip", "netns", "exec", full, sys.executable, "-c", COLLECTOR], stdout=out)
        started.append((pod, address, said, process))

    def hidden(pod):
        return [row for row in life.gateway.topology()["hidden"] if row["name"] == pod]

    def act():
        for pod, address, _, _ in started:
            life.plane.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: {pod}, namespace: {life.kubelet.namespace}, labels: {{app: cassandra}}}}
spec:
  containers: [{{name: c, image: "example.com/c:1", ports: [{{name: cql, containerPort: 9042}}]}}]
""")
            life.kubelet.place(pod, address)
            life.kubelet.ready(pod)
            until("it is in the slices", lambda pod=pod: pod in life.kubelet.endpoints("cassandra"), 30)
            until(f"{pod} is hidden", lambda pod=pod: hidden(pod), 30)
            until(f"the log says why {pod} is", lambda pod=pod: any(f"pod {pod} is owned by no" in line for line in life.log()), 30)

    try:
        life.loaded("impostor", act, dict.fromkeys(IMPOSTORS, ""))
        for pod, address, said, _ in started:
            life.judge(f"impostor: {pod}", lambda _, pod=pod, address=address, said=said: kept_out(life, hidden(pod), address, said))
    finally:
        for pod, _, _, process in started:
            process.kill()
            life.kubelet.forget(pod)


def kept_out(life, hidden, address, said):
    shown = [row for row in life.gateway.topology()["nodes"] if row["address"].startswith(f"{address}:") and row["state"] == "up"]
    if shown or [(row["address"], row["reason"]) for row in hidden] != [(f"{address}:9042", "not_owned")]:
        raise a.Failed(f"it is {hidden}, {shown}")
    opcodes = [int(line.split()[0]) for line in said.read_text().splitlines()]
    # AUTH_RESPONSE.
    if 15 in opcodes:
        raise a.Failed(f"it was sent a login, in frames {opcodes}")
    return f"not_owned; it was sent {len(opcodes)} frames, and no login"
