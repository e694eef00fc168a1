"""Python driver; README.md has the lines that it speaks."""
import json
import ssl
import sys
import threading
import time
from collections import Counter

from cassandra import ConsistencyLevel
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import (ConstantReconnectionPolicy, DCAwareRoundRobinPolicy, FallthroughRetryPolicy, HostFilterPolicy, RetryPolicy,
                                TokenAwarePolicy)

options = json.loads(sys.argv[1])
printing = threading.Lock()


def say(**line):
    with printing:
        print(json.dumps(line), flush=True)


def address(host):
    return f"{host.endpoint.address}:{host.endpoint.port}"


class Listener:
    def on_up(self, host): say(event="up", address=address(host))
    def on_down(self, host): say(event="down", address=address(host))
    def on_add(self, host): say(event="add", address=address(host))
    def on_remove(self, host): say(event="remove", address=address(host))


more = {}
if options["version"]:
    more["protocol_version"] = options["version"]
if options["username"]:
    more["auth_provider"] = PlainTextAuthProvider(options["username"], options["password"])
if options["ca"]:
    more["ssl_context"] = ssl.create_default_context(cafile=options["ca"])
    if options["tls"]:
        version = ssl.TLSVersion[f"TLSv{options['tls'].replace('.', '_')}"]
        more["ssl_context"].minimum_version = more["ssl_context"].maximum_version = version
    if options["certificate"]:
        more["ssl_context"].load_cert_chain(options["certificate"], options["key"])
    more["ssl_options"] = {"server_hostname": options["contacts"][0].split(":")[0]}
policy = TokenAwarePolicy(DCAwareRoundRobinPolicy("dc1"), shuffle_replicas=False)
if options.get("only"):
    # Other nodes are neither asked nor dialled.
    policy = HostFilterPolicy(policy, lambda host: address(host) in options["contacts"])
profile = ExecutionProfile(load_balancing_policy=policy, consistency_level=ConsistencyLevel.ONE,
                           retry_policy=RetryPolicy() if options.get("retries", True) else FallthroughRetryPolicy())
cluster = Cluster(
    [(c.split(":")[0], int(c.split(":")[1])) for c in options["contacts"]],
    execution_profiles={EXEC_PROFILE_DEFAULT: profile},
    compression=False if options["compression"] == "none" else options["compression"],
    reconnection_policy=ConstantReconnectionPolicy(1.0), **more)
cluster.register_listener(Listener())
session = cluster.connect(wait_for_all_pools=True)
one = session.prepare("SELECT v FROM k1.t WHERE k = ?")
three = session.prepare("SELECT v FROM k3.t WHERE k = ?")
three.is_idempotent = True
ids = {}


def hosts():
    found = cluster.metadata.all_hosts()
    ids.update({h.endpoint: str(h.host_id) for h in found})
    return found


def nodes(_):
    tokens = {}
    for token, host in cluster.metadata.token_map.token_to_host_owner.items():
        tokens.setdefault(host.endpoint, []).append(str(token.value))
    control = cluster.control_connection._connection
    say(reply="nodes", control=f"{control.endpoint.address}:{control.endpoint.port}" if control else None,
        peers_v2=cluster.control_connection._uses_peers_v2,
        nodes=[dict(host_id=str(h.host_id), address=h.endpoint.address, port=h.endpoint.port, dc=h.datacenter, rack=h.rack,
                    tokens=tokens.get(h.endpoint, []), up=bool(h.is_up)) for h in hosts()])


def pin(_):
    pinned = []
    for host in hosts():
        try:
            row = session.execute("SELECT host_id FROM system.local WHERE key='local'", host=host).one()
            pinned.append(dict(host_id=str(host.host_id), says=str(row.host_id)))
        except Exception as error:
            pinned.append(dict(host_id=str(host.host_id), says=repr(error)))
    say(reply="pin", pinned=pinned)


def keys(_):
    hosts()
    seen = []
    for k in range(300):
        bound = one.bind([k])
        future = session.execute_async(bound)
        future.result()
        replicas = cluster.metadata.get_replicas("k1", bound.routing_key)
        seen.append([k, [str(h.host_id) for h in replicas], str(future.coordinator_host.host_id)])
    say(reply="keys", keys=seen)


class Load(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.going, self.ok, self.errors, self.first, self.coordinators, self.took = True, 0, 0, None, Counter(), []

    def run(self):
        k = 0
        while self.going:
            k = (k + 1) % 300
            begun = time.monotonic()
            try:
                future = session.execute_async(three.bind([k]))
                future.result()
                self.ok += 1
                self.took.append((time.monotonic() - begun) * 1000)
                self.coordinators[str(future.coordinator_host.host_id)] += 1
            except Exception as error:
                self.errors += 1
                self.first = self.first or repr(error)
            time.sleep(0.003)


load = None


def start(_):
    global load
    load = Load()
    load.start()
    say(reply="start")


def stop(_):
    load.going = False
    load.join()
    took = sorted(load.took) or [0.0]
    say(reply="stop", p50=took[len(took) // 2], p99=took[len(took) * 99 // 100], ok=load.ok, errors=load.errors, first=load.first, coordinators=dict(load.coordinators))


def ddl(name):
    try:
        future = session.execute_async(f"CREATE TABLE k3.{name} (k int PRIMARY KEY)")
        future.result()
        say(reply="ddl", agreed=future.is_schema_agreed, error=None)
    except Exception as error:
        say(reply="ddl", agreed=False, error=repr(error))


say(event="ready", driver="python", protocol=f"v{cluster.protocol_version}",
    compression=cluster.control_connection._connection._compression_type or "none")
commands = dict(nodes=nodes, pin=pin, keys=keys, start=start, stop=stop, ddl=ddl)
for line in sys.stdin:
    command, _, argument = line.strip().partition(" ")
    if command == "quit":
        break
    commands[command](argument)
cluster.shutdown()
