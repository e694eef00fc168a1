"""The configuration is changed under load, over and over: no request fails, on connections that stay and on those that come."""
import json
import signal
import subprocess

from . import assertions as a
from . import net
from .gateway import FIRST_PORT
from .wait import until

TIMES = 200
CLIENT = 32
# Four connections that stay and four that are opened anew for each ten requests; until the input ends. Says how many were answered.
LOAD = """
import json, socket, struct, sys, threading
address, over = (sys.argv[1], int(sys.argv[2])), threading.Event()
answered, failed = [0] * 8, []
word = lambda text: struct.pack(">H", len(text)) + text
frame = lambda opcode, body: struct.pack(">BBhBi", 4, 0, 0, opcode, len(body)) + body
query = b"SELECT key FROM system.local"
QUERY = frame(7, struct.pack(">i", len(query)) + query + struct.pack(">HB", 1, 0))
STARTUP = frame(1, struct.pack(">H", 1) + word(b"CQL_VERSION") + word(b"3.0.0"))

def ask(s, request, wanted):
    s.sendall(request)
    answer = b""
    while len(answer) < 9 or len(answer) < 9 + int.from_bytes(answer[5:9], "big"):
        more = s.recv(65536)
        if not more:
            raise OSError("closed")
        answer += more
    if answer[4] != wanted:
        raise OSError(f"opcode {answer[4]}: {answer[9:109]}")

def run(n):
    while not over.is_set():
        try:
            with socket.create_connection(address, 10) as s:
                ask(s, STARTUP, 2)
                left = 10 if n % 2 else 1 << 60
                while left and not over.is_set():
                    ask(s, QUERY, 8)
                    answered[n] += 1
                    left -= 1
        except OSError as error:
            failed.append(str(error))
            return

threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
[thread.start() for thread in threads]
sys.stdin.read()
over.set()
[thread.join() for thread in threads]
print(json.dumps({"answered": answered, "failed": failed}))
"""


def taken(gateway):
    """How often a configuration was taken so far."""
    name = 'cqlgate_config_reloads_total{outcome="taken"} '
    return next((int(line[len(name):]) for line in gateway.admin("/metrics").splitlines() if line.startswith(name)), 0)


def reload(gateway, text):
    """Writes the file and says so; returns when it is in force."""
    before = taken(gateway)
    beside = gateway.config.with_suffix(".new")
    beside.write_text(text)
    beside.rename(gateway.config)
    gateway.process.send_signal(signal.SIGHUP)
    until("the configuration is taken", lambda: taken(gateway) > before, 20, every=0.02, during=gateway.alive)


def under_load(suite):
    """The step: the file of before stands again at its end."""
    gateway = suite.gateway
    before = gateway.config.read_text()
    client = net.Client(f"ask{CLIENT}", CLIENT)
    command = ["ip", "netns", "exec", client.full, "python3", "-c", LOAD, net.GATEWAY, str(FIRST_PORT)]
    load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        for n in range(TIMES):
            reload(gateway, before + f"probe: {{interval: {1 + n % 3}s}}\nviews: {{rules: [{{driver: x{n}, view: single_node}}]}}\n"
                                     f"timeouts: {{hold: {5 + n % 7}s}}\nlimits: {{connections: {5000 + n}}}\n")
    finally:
        told = json.loads(load.communicate(timeout=30)[0])
        reload(gateway, before)
    if told["failed"] or min(told["answered"]) == 0:
        raise a.Failed(f"of {TIMES} reloads: {told}")
    return f"{TIMES} reloads, {sum(told['answered'])} requests, none failed"
