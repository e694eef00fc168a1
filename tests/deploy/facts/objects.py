"""The rendered objects: pods, Services, the gateway's file, the network."""
import yaml

from chart import Objects, defaults, refusal
from check import EVERYTHING, check, config, equal, kubernetes


@check
def defaults_are_these_objects():
    equal(defaults().names(), [
        ("ConfigMap", "cqlgate"), ("Deployment", "cqlgate"), ("NetworkPolicy", "cqlgate"), ("PodDisruptionBudget", "cqlgate"),
        ("Role", "cqlgate-nodes"), ("Role", "cqlgate-own"), ("RoleBinding", "cqlgate-nodes"), ("RoleBinding", "cqlgate-own"),
        ("Service", "cqlgate"), ("Service", "cqlgate-admin"), ("ServiceAccount", "cqlgate")])
    for kept in defaults().all:
        equal(kept["metadata"]["namespace"], "db", kept["kind"])


@check
def everything_on_adds_the_optional_objects():
    names = Objects(EVERYTHING, namespace="gateway").names()
    for kind in ("Certificate", "ServiceMonitor", "PodMonitor"):
        assert (kind, "cqlgate") in names, names


@check
def pods_are_confined():
    pod, container = defaults().pod(), defaults().container()
    equal(pod["securityContext"], {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                                   "seccompProfile": {"type": "RuntimeDefault"}})
    equal(container["securityContext"], {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                         "capabilities": {"drop": ["ALL"]}})
    equal([container[p]["httpGet"] for p in ("livenessProbe", "readinessProbe")],
          [{"path": "/livez", "port": "admin"}, {"path": "/readyz", "port": "admin"}])
    equal(container["ports"], [{"name": "admin", "containerPort": 9180, "protocol": "TCP"}])
    assert "lifecycle" not in container, "the image has no shell and no sleep"
    equal(container["args"], ["run", "--config", "/etc/cqlgate/cqlgate.yaml"])


@check
def two_replicas_stand_apart():
    found = defaults()
    equal(found.find("Deployment")["spec"]["replicas"], 2)
    spread = found.pod()["topologySpreadConstraints"]
    equal([s["topologyKey"] for s in spread], ["topology.kubernetes.io/zone", "kubernetes.io/hostname"])
    labels = found.find("Deployment")["spec"]["template"]["metadata"]["labels"]
    budget = found.find("PodDisruptionBudget")["spec"]
    selectors = [s["labelSelector"]["matchLabels"] for s in spread] + [
        budget["selector"]["matchLabels"], found.find("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        found.find("Service")["spec"]["selector"], found.find("Service", "cqlgate-admin")["spec"]["selector"]]
    for selector in selectors:
        assert selector.items() <= labels.items() and len(selector) == 2, selector
    equal(budget["maxUnavailable"], 1)
    assert not Objects({"replicas": 1}).has("PodDisruptionBudget"), "with one replica it would only keep machines from being emptied"


@check
def the_service_declares_the_whole_range_once():
    for listen, first, last in (("0.0.0.0:9042-9061", 9042, 9061), ("[::]:19042-19091", 19042, 19091), ("0.0.0.0:9042", 9042, 9042)):
        found = Objects(config(listen=listen))
        equal(found.find("Service")["spec"]["ports"],
              [{"name": f"cql-{n}", "port": n, "targetPort": n, "protocol": "TCP"} for n in range(first, last + 1)])
        rule = found.find("NetworkPolicy")["spec"]["ingress"][0]
        equal(rule, {"ports": [{"protocol": "TCP", "port": first, "endPort": last}]}, "anyone may be a client")
    equal(len(Objects(config(listen="0.0.0.0:20000-20999")).find("Service")["spec"]["ports"]), 1000)


@check
def the_load_balancer_never_has_the_admin_port():
    for values in ({}, EVERYTHING):
        for service in (o for o in Objects(values).all if o["kind"] == "Service" and o["spec"]["type"] == "LoadBalancer"):
            assert all(port["port"] != 9180 for port in service["spec"]["ports"]), service


@check
def grace_covers_the_drain():
    def grace(**drain):
        return Objects(config(drain=drain)).pod()["terminationGracePeriodSeconds"]

    equal(grace(), 15 + 30 + 10, "the chart's delay, the gateway's deadline, ten")
    equal(grace(spread="20s", linger="10s"), 15 + 30 + 10, "both end at the deadline")
    equal(grace(delay="1m 30s", deadline="2m"), 90 + 120 + 10)
    equal(grace(delay="1500ms", deadline="0"), 2 + 0 + 10)
    equal(grace(delay="1h", deadline="0.5s"), 3600 + 1 + 10)
    equal(Objects({"terminationGracePeriodSeconds": 46}).pod()["terminationGracePeriodSeconds"], 46)
    assert "would cut the drain, which takes up to 45 s" in refusal({"terminationGracePeriodSeconds": 45})
    assert "500ms, 10s or 1m 30s" in refusal(config(drain={"delay": "soon"}))
    assert "delay" in refusal(config(drain={"delay": "15"}))


@check
def only_what_a_running_gateway_cannot_take_rolls_the_pods():
    def checksum(values):
        return Objects(values).find("Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    for taken in [config(log={"level": "debug"}), config(access={"deny": ["10.1.2.3"]}), config(advertise="203.0.113.10"),
                  kubernetes(pins={"cassandra-2": 9047}), kubernetes(statefulSets=[{"name": "a", "ports": "9042-9043"}], ledger="l"),
                  kubernetes(first_ordinal=1), config(discovery={"allow": ["10.0.0.0/8"]}), {"replicas": 5}]:
        start = kubernetes(ledger="l") if "ledger" in str(taken) else {}
        equal(checksum(taken), checksum(start))
        never = {"rollOut": "never"}
        equal(checksum(taken | never), checksum(never))
    for left in [config(listen="0.0.0.0:9042-9070"), config(admin="0.0.0.0:9181"), config(log={"format": "human"}),
                 kubernetes(service="other"), kubernetes(namespace="other"), config(advertise="g", discovery={"dns": "c.db"})]:
        assert checksum({}) != checksum(left), left
        equal(checksum(left | {"rollOut": "never"}), checksum({"rollOut": "never"}))
    always = {"rollOut": "always"}
    assert checksum(always) != checksum(config(log={"level": "debug"}) | always)
    equal(checksum(always), checksum({"replicas": 5} | always))
    assert "rollOut" in refusal({"rollOut": "sometimes"})


@check
def chart_adds_what_is_absent_and_changes_nothing_given():
    equal(defaults().config(), {
        "listen": "0.0.0.0:9042-9061", "advertise": {"service": "cqlgate"}, "admin": "0.0.0.0:9180",
        "discovery": {"kubernetes": {"service": "cassandra", "ledger": "cqlgate-ports", "snapshot_file": "/var/lib/cqlgate/snapshot.json"}},
        "drain": {"delay": "15s"}, "reload": {"jitter": "30s"}})
    equal(yaml.safe_load(Objects({}, release="a").find("ConfigMap", "a-cqlgate")["data"]["cqlgate.yaml"])["advertise"],
          {"service": "a-cqlgate"})
    named = Objects({"fullnameOverride": "gate"})
    equal(named.find("Service", "gate")["metadata"]["name"], "gate")
    equal(yaml.safe_load(named.find("ConfigMap", "gate")["data"]["cqlgate.yaml"])["advertise"], {"service": "gate"})
    equal(Objects(config(advertise="203.0.113.10")).config()["advertise"], "203.0.113.10")
    equal(Objects(kubernetes(service="scylla")).config()["discovery"]["kubernetes"]["service"], "scylla")
    equal(Objects(config(discovery={"nodes": [{"name": "a", "address": "h"}]})).config()["discovery"],
          {"nodes": [{"name": "a", "address": "h"}]})
    equal(Objects({"state": {"enabled": False}}).config()["discovery"], {"kubernetes": {"service": "cassandra", "ledger": "cqlgate-ports"}})


@check
def secrets_are_mounted_where_the_file_looks_for_them():
    found = Objects(EVERYTHING, namespace="gateway")
    sources = next(v for v in found.pod()["volumes"] if v["name"] == "config")["projected"]["sources"]
    mounted = {item["path"]: (s["secret"]["name"], item["key"]) for s in sources if "secret" in s for item in s["secret"]["items"]}
    equal(mounted, {"credentials/password": ("cassandra-role", "password"), "tls/clients/tls.crt": ("cqlgate-tls", "tls.crt"),
                    "tls/clients/tls.key": ("cqlgate-tls", "tls.key"), "tls/nodes/ca.crt": ("nodes-tls", "ca.crt"),
                    "tls/auth/ca.crt": ("clients-ca", "ca.crt"), "tls/auth/crl.pem": ("clients-ca", "ca.crl"),
                    "tls/nodes/tls.crt": ("nodes-tls", "tls.crt"), "tls/nodes/tls.key": ("nodes-tls", "tls.key"),
                    "tls/identities/0/tls.crt": ("app-1", "tls.crt"), "tls/identities/0/tls.key": ("app-1", "tls.key")})
    told = found.config()
    clients, nodes = told["tls"]["clients"], told["tls"]["nodes"]
    auth, identity = clients["client_auth"], nodes["identities"][0]
    equal({told["probe"]["password_file"], clients["certificate"], clients["key"], auth["ca"], auth["crl"], nodes["ca"], nodes["certificate"],
           nodes["key"], identity["certificate"], identity["key"]}, set(mounted))
    equal((auth["mode"], identity["client"]), ("optional", "CN:app-1"), "what is given is kept")
    equal(told["probe"]["username"], "gateway", "what is given is kept")
    equal(found.find("Certificate")["spec"]["secretName"], "cqlgate-tls")
    assert "tls" not in defaults().config() and "probe" not in defaults().config()



@check
def network_policy_lets_out_only_what_is_needed():
    egress = Objects(kubernetes(namespace="cassandra"), namespace="gateway").find("NetworkPolicy")["spec"]["egress"]
    equal(egress, [
        {"ports": [{"protocol": "TCP", "port": 9042}],
         "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "cassandra"}}}]},
        {"ports": [{"protocol": protocol, "port": port} for port in (53, 5353) for protocol in ("UDP", "TCP")]},
        {"ports": [{"protocol": "TCP", "port": port} for port in (443, 6443, 8443, 16443)]}])
    without = config(advertise="h", discovery={"nodes": [{"name": "a", "address": "h"}]})
    equal(len(Objects(without).find("NetworkPolicy")["spec"]["egress"]), 2, "no API server")
    assert not Objects({"networkPolicy": {"enabled": False}}).has("NetworkPolicy")


@check
def network_policy_follows_the_nodes_port():
    def out(values):
        return [rule["port"] for rule in Objects(values).find("NetworkPolicy")["spec"]["egress"][0]["ports"]]

    def policy(*ports):
        return {"networkPolicy": {"nodes": {"ports": list(ports)}}}

    def nodes(*addresses):
        return config(advertise="h", discovery={"nodes": [{"name": f"n-{n}", "address": text} for n, text in enumerate(addresses)]})

    equal(out(kubernetes(port=9142)), [9142])
    equal(out(kubernetes(port="tls")), [9042], "a name says no number")
    equal(out(kubernetes(port="tls") | policy(9142, 9143)), [9142, 9143])
    equal(out(kubernetes(port=9142) | policy(9042, 9142)), [9042, 9142])
    equal(out(nodes("10.0.0.1", "10.0.0.2:9042", "[2001:db8::1]:9042", "[2001:db8::1]", "2001:db8::1", "node.example.com:9042")), [9042])
    equal(out(nodes("10.0.0.1:9142", "10.0.0.2") | policy(9042, 9142)), [9042, 9142])
    assert "port 9142: the NetworkPolicy lets the gateway out to port 9042 alone" in refusal(kubernetes(port=9142) | policy(9042))
    for address, port in (("10.0.0.1:9142", 9142), ("[2001:db8::1]:9142", 9142), ("node.example.com:19042", 19042)):
        said = refusal(nodes("10.0.0.2", address))
        assert f"discovery.nodes: {address} has port {port}" in said and "networkPolicy.nodes.ports" in said, said
    assert "10.0.0.1 has port 9042" in refusal(nodes("10.0.0.1", "10.0.0.2:9142") | policy(9142))
    contact = config(discovery={"contact_points": ["10.0.0.1:9142"]}) | {"replicas": 1}
    assert "discovery.contact_points: 10.0.0.1:9142 has port 9142" in refusal(contact)
    Objects(contact | policy(9142))
    Objects(contact | {"networkPolicy": {"enabled": False}})


@check
def health_checks_ask_the_port_that_answers():
    def local(port, **service):
        return Objects({"service": {"externalTrafficPolicy": "Local", "healthCheckNodePort": port} | service})

    equal(local(32042).find("Service")["spec"].get("healthCheckNodePort"), 32042)
    assert "healthCheckNodePort" not in local(None).find("Service")["spec"]
    for service in ({"externalTrafficPolicy": "Cluster"}, {"type": "ClusterIP"}):
        values = {"service": {"externalTrafficPolicy": "Local", "healthCheckNodePort": 32042} | service} | config(advertise="h")
        assert "there is none without" in refusal(values)
    annotated = {"service": {"annotations": {"service.beta.kubernetes.io/aws-load-balancer-healthcheck-port": "9180"}}}
    Objects(annotated)
    assert "health check asks port 9180, and config.admin is 0.0.0.0:9181" in refusal(annotated | config(admin="0.0.0.0:9181"))
    Objects({"service": {"annotations": {"service.beta.kubernetes.io/aws-load-balancer-healthcheck-port": "traffic-port"}}})


@check
def network_policy_lets_in_clients_and_prometheus():
    rules = Objects(EVERYTHING, namespace="gateway").find("NetworkPolicy")["spec"]["ingress"]
    equal(rules[0]["from"], [{"ipBlock": {"cidr": "198.51.100.0/24"}}])
    equal(rules[1], {"ports": [{"protocol": "TCP", "port": 9180}], "from": [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}, "podSelector": {}},
        {"ipBlock": {"cidr": "10.0.0.0/8"}}]})
    nobody = {"networkPolicy": {"monitoring": {"namespaceSelector": None, "podSelector": None}}}
    equal(len(Objects(nobody).find("NetworkPolicy")["spec"]["ingress"]), 1, "no rule without a peer: it would be for everyone")
