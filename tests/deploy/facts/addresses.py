"""Several addresses: Services for parts of the ports or for each node, numbers of a NodePort, and paths."""
import re

import yaml

import chart
from chart import Objects, refusal
from check import EVERYTHING, check, config, equal

HUNDRED = config(listen="0.0.0.0:9042-9141")
TWO = [{"name": "a", "ports": "9042-9091"}, {"name": "b", "ports": "9092-9141"}]
INSIDE = {"name": "inside", "from": ["10.0.0.0/8"], "advertise": "pods"}
OUTSIDE = {"name": "outside", "advertise": {"service": "cqlgate"}}
PRESERVE = {"service.beta.kubernetes.io/aws-load-balancer-target-group-attributes": "preserve_client_ip.enabled=true"}
IP_TARGETS = {"service.beta.kubernetes.io/aws-load-balancer-nlb-target-type": "ip"}


def service(**keys):
    return {"service": keys}


def parts(*ports, **keys):
    return service(parts=[{"name": f"p{n}", "ports": text} for n, text in enumerate(ports)], **keys)


def of_clients(found):
    """The Services for clients, by their names, in the order in which they stand."""
    return {o["metadata"]["name"]: o for o in found.all if o["kind"] == "Service" and o["metadata"]["name"] != "cqlgate-admin"}


def watched(found):
    """The Services of the release's namespace whose status may be read."""
    return sorted({name for place, _, resource, names, verb in found.rights() if (place, resource) == ("gateway", "services")
                   for name in names.split(",")})


def rendered(values):
    """In a namespace beside Cassandra's, so that rights on the release's own Services stand out."""
    told = values.get("config", {})
    return Objects(values | {"config": {"discovery": {"kubernetes": {"namespace": "db"}}} | told}, namespace="gateway")


def readme():
    """The values that deploy/README.md shows for several addresses."""
    text = (chart.DEPLOY / "README.md").read_text().split("\n## Several addresses\n")[1].split("\n## ")[0]
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]


@check
def two_parts_of_fifty_ports_are_two_load_balancers():
    found = rendered(HUNDRED | service(parts=TWO) | {"loadBalancer": {"provider": "aws"}})
    services = of_clients(found)
    equal(list(services), ["cqlgate-a", "cqlgate-b"])
    for name, first in (("cqlgate-a", 9042), ("cqlgate-b", 9092)):
        equal(services[name]["spec"]["ports"],
              [{"name": f"cql-{n}", "port": n, "targetPort": n, "protocol": "TCP"} for n in range(first, first + 50)])
        equal(services[name]["spec"]["type"], "LoadBalancer")
    equal(found.config()["advertise"], [{"ports": "9042-9091", "service": "cqlgate-a"}, {"ports": "9092-9141", "service": "cqlgate-b"}])
    equal(watched(found), ["cqlgate-a", "cqlgate-b"])
    equal(found.find("NetworkPolicy")["spec"]["ingress"][0]["ports"], [{"protocol": "TCP", "port": 9042, "endPort": 9141}])


@check
def a_part_has_what_is_its_own_and_else_what_all_have():
    found = of_clients(Objects(EVERYTHING))
    equal(list(found), ["cqlgate-a", "cqlgate-b"])
    first, second = found["cqlgate-a"], found["cqlgate-b"]
    equal([o["metadata"]["annotations"] for o in (first, second)], [{"example.com/pool": "first"}, {"example.com/pool": "external"}])
    equal([o["spec"].get("loadBalancerIP") for o in (first, second)], ["203.0.113.10", None])
    equal([o["spec"].get("healthCheckNodePort") for o in (first, second)], [32042, None])
    equal([o["spec"]["loadBalancerSourceRanges"] for o in (first, second)], [["198.51.100.0/24"], ["192.0.2.0/24"]])
    equal([o["spec"]["loadBalancerClass"] for o in (first, second)], ["example.com/lb"] * 2)
    unordered = Objects(parts("9052-9061", "9042-9050", "9051"))
    equal([entry["ports"] for entry in unordered.config()["advertise"]], ["9052-9061", "9042-9050", "9051"])


@check
def a_service_for_each_node_has_the_same_port():
    found = rendered(service(perNode=True, annotations={"example.com/name": "node-{index}.example.com"}))
    services = of_clients(found)
    equal(list(services), [f"cqlgate-{n}" for n in range(20)])
    for index, made in enumerate(services.values()):
        listened = 9042 + index
        equal(made["spec"]["ports"], [{"name": f"cql-{listened}", "port": 9042, "targetPort": listened, "protocol": "TCP"}])
        equal(made["metadata"]["annotations"], {"example.com/name": f"node-{index}.example.com"})
    equal(found.config()["advertise"], [{"ports": "9042-9061", "service": "cqlgate-{index}", "port": 9042}])
    equal(watched(found), sorted(services))
    other = Objects(service(perNode=True, perNodePort=19042) | config(listen="[::]:9042"))
    equal([o["spec"]["ports"][0]["port"] for o in of_clients(other).values()], [19042])
    equal(other.config()["advertise"], [{"ports": "9042", "service": "cqlgate-{index}", "port": 19042}])


@check
def node_ports_have_the_numbers_that_clients_are_told():
    told = [{"ports": "9042-9061", "address": "203.0.113.10", "first_port": 30042}]
    found = rendered(service(type="NodePort", firstNodePort=30042, externalTrafficPolicy="Local") | config(advertise=told))
    spec = found.find("Service")["spec"]
    equal((spec["type"], spec["externalTrafficPolicy"]), ("NodePort", "Local"))
    equal([(port["targetPort"], port["nodePort"]) for port in spec["ports"]], [(9042 + n, 30042 + n) for n in range(20)])
    assert "allocateLoadBalancerNodePorts" not in spec, spec
    equal(found.config()["advertise"], told)
    equal(watched(found), [])
    assert "service.firstNodePort must say which" in refusal(service(type="NodePort") | config(advertise="h"))
    assert "beyond 65535" in refusal(service(type="NodePort", firstNodePort=65530) | config(advertise="h"))
    assert "only with service.type NodePort" in refusal(service(firstNodePort=30042))
    assert "must say what clients dial" in refusal(service(type="NodePort", firstNodePort=30042))


@check
def what_is_given_counts_and_the_role_names_its_services():
    given = [{"ports": "9042-9044", "service": "mine-{index}", "port": 9042}, {"ports": "9045-9060", "service": "other"},
             {"ports": "9061", "address": "node-{index}.example.com"}]
    for way in (service(), service(perNode=True), parts("9042-9061")):
        found = rendered(config(advertise=given) | way)
        equal(found.config()["advertise"], given)
        equal(watched(found), ["mine-0", "mine-1", "mine-2", "other"])
    paths = [{"name": "private", "proxy": {"aws_vpce": "vpce-0123"}, "advertise": given[:1] + [{"ports": "9045-9061", "service": "other"}]},
             {"name": "office", "from": ["198.51.100.0/24"], "advertise": {"service": "office"}}, OUTSIDE]
    found = rendered(config(paths=paths, proxy_protocol={"mode": "required", "from": ["10.0.1.0/24"]}))
    equal(found.config()["paths"], paths)
    assert "advertise" not in found.config(), found.config()
    equal(watched(found), ["cqlgate", "mine-0", "mine-1", "mine-2", "office", "other"])
    alone = {"nodes": [{"name": "a", "address": "10.0.0.1"}]}
    without = Objects(config(paths=[INSIDE, {"name": "outside", "advertise": "203.0.113.10"}], discovery=alone) | service(externalTrafficPolicy="Local"))
    equal((without.rights(), without.pod()["automountServiceAccountToken"]), ([], False))
    read = Objects(config(paths=[INSIDE, OUTSIDE], discovery=alone) | service(externalTrafficPolicy="Local"))
    equal([(right[3], right[4]) for right in read.rights()], [("cqlgate", "list"), ("cqlgate", "watch")])
    equal(read.pod()["automountServiceAccountToken"], True)
    assert "leave out config.advertise" in refusal(config(advertise="h", paths=[OUTSIDE]))
    Objects(config(paths=[{"name": "outside", "advertise": "203.0.113.10"}]) | service(type="ClusterIP"))


@check
def parts_have_each_port_once():
    Objects(parts("9042-9050", "9051-9061"))
    assert "9042-9062 of p0 are outside config.listen" in refusal(parts("9042-9062"))
    assert "9041-9061 of p0 are outside" in refusal(parts("9041-9061"))
    assert "9061-9042 of p0 are outside" in refusal(parts("9061-9042"))
    assert "p0 and p1 both have port 9051" in refusal(parts("9042-9051", "9051-9061"))
    assert "p0 and p1 both have port 9042" in refusal(parts("9042-9051", "9042-9061"))
    assert "p1 and p0 both have port 9050" in refusal(parts("9050-9061", "9042-9055"))
    assert "none has port 9042" in refusal(parts("9043-9061"))
    assert "none has port 9051" in refusal(parts("9042-9050", "9052-9061"))
    assert "none has port 9061" in refusal(parts("9042-9060"))
    assert "name admin is taken" in refusal(service(parts=[{"name": "admin", "ports": "9042-9061"}]))
    assert "name a is taken" in refusal(service(parts=[{"name": "a", "ports": "9042-9050"}, {"name": "a", "ports": "9051-9061"}]))
    assert "name" in refusal(service(parts=[{"name": "Much_Too_Long_A_Name", "ports": "9042-9061"}]))
    assert "bogus" in refusal(service(parts=[{"name": "a", "ports": "9042-9061", "bogus": 1}]))


@check
def ways_of_several_services_exclude_each_other():
    assert "perNode and service.parts exclude each other" in refusal(parts("9042-9061", perNode=True))
    for way, key in ((service(perNode=True), "perNode"), (parts("9042-9061"), "parts")):
        def refused(keys, way=way):
            return refusal({"service": way["service"] | keys} | config(advertise="h"))

        for kind in ({"type": "ClusterIP"}, {"type": "NodePort", "firstNodePort": 30042}):
            assert f"service.{key}: more than one Service is for service.type LoadBalancer" in refused(kind)
        assert "several Services cannot have one address" in refused({"loadBalancerIP": "203.0.113.10"})
        assert "several Services cannot have one" in refused({"healthCheckNodePort": 32042, "externalTrafficPolicy": "Local"})
    unhealthy = [{"name": "a", "ports": "9042-9061", "healthCheckNodePort": 32042}]
    assert "there is none without" in refusal(service(parts=unhealthy))
    Objects(service(parts=unhealthy, externalTrafficPolicy="Local"))


@check
def a_load_balancers_limit_is_that_of_each_part():
    aws = {"loadBalancer": {"provider": "aws"}}
    said = refusal(HUNDRED | aws)
    assert "100 ports, and an AWS Network Load Balancer has at most 50 listeners" in said and "service.parts" in said, said
    Objects(HUNDRED | aws | service(parts=TWO))
    Objects(HUNDRED | aws | service(perNode=True))
    assert "cqlgate-p1 has 51 ports" in refusal(HUNDRED | aws | parts("9042-9090", "9091-9141"))
    other = [TWO[0], TWO[1] | {"annotations": {"service.beta.kubernetes.io/aws-load-balancer-nlb-target-type": "instance"}}]
    spared = service(parts=other, annotations=IP_TARGETS, allocateLoadBalancerNodePorts=False)
    assert "needs the target type ip" in refusal(HUNDRED | aws | spared)
    health = {"service.beta.kubernetes.io/aws-load-balancer-healthcheck-port": "9181"}
    assert "health check asks port 9181" in refusal(HUNDRED | service(parts=[TWO[0], TWO[1] | {"annotations": health}]))
    # All rules of a cluster are of one load balancer there.
    whole = config(listen="0.0.0.0:10001-10301") | {"loadBalancer": {"provider": "azure"}}
    assert "at most 300 rules" in refusal(whole | parts("10001-10150", "10151-10301"))


@check
def paths_by_clients_addresses_need_those():
    paths = config(paths=[INSIDE, OUTSIDE])
    assert "externalTrafficPolicy Cluster shows those of machines" in refusal(paths)
    Objects(paths | service(externalTrafficPolicy="Local"))
    for mode in ("required", "optional"):
        Objects(config(paths=[INSIDE, OUTSIDE], proxy_protocol={"mode": mode, "from": ["10.0.1.0/24"]}))
    assert "externalTrafficPolicy" in refusal(config(paths=[INSIDE, OUTSIDE], proxy_protocol={"mode": "off"}))
    assert "externalTrafficPolicy" in refusal(paths | service(type="NodePort", firstNodePort=30042))
    Objects(config(paths=[OUTSIDE]))
    aws = {"loadBalancer": {"provider": "aws"}}
    assert "with ip targets hides them" in refusal(paths | aws | service(annotations=IP_TARGETS, externalTrafficPolicy="Local"))
    Objects(paths | aws | service(annotations=IP_TARGETS | PRESERVE))
    hiding = [{"name": "a", "ports": "9042-9050"}, {"name": "b", "ports": "9051-9061", "annotations": PRESERVE}]
    assert "with ip targets hides them" in refusal(paths | aws | service(parts=hiding, annotations=IP_TARGETS))
    private = [{"name": "private", "proxy": {"aws_vpce": "vpce-0123"}, "advertise": "10.9.0.10"}, OUTSIDE]
    assert "private goes by what the load balancer's header says, and none is read" in refusal(config(paths=private))


@check
def notes_tell_of_each_address():
    def notes(values):
        return chart.run("install", "cqlgate", chart.CHART, "--namespace", "db", "--dry-run=client", values=values).split("NOTES:")[1]

    several = notes(service(perNode=True))
    assert "20 Services of type LoadBalancer" in several and "cqlgate-19" in several, several
    assert "Services of type LoadBalancer" not in notes({})
    assert "every driver sees every node" in several and "every driver sees every node" not in notes({})
    halves = notes(HUNDRED | service(parts=TWO))
    assert "cqlgate-a" in halves and "cqlgate-b" in halves and "loadBalancer.provider is not set" not in halves, halves
    told = notes(service(type="NodePort", firstNodePort=30042) | config(advertise=[{"ports": "9042-9061", "address": "h", "first_port": 30042}]))
    assert "first_port: 30042" in told and "map[" not in told, told


@check
def readme_has_values_for_each_way_of_several_addresses():
    found = [rendered(values) for values in readme()]
    equal([list(of_clients(one))[:2] for one in found],
          [["cqlgate-a", "cqlgate-b"], ["cqlgate-0", "cqlgate-1"], ["cqlgate-0", "cqlgate-1"], ["cqlgate"], ["cqlgate"], ["cqlgate"]])
    equal([len(one.config().get("advertise", [])) for one in found], [2, 1, 1, 1, 0, 0])
    equal([watched(one) for one in found[2:]], [[], [], ["cqlgate"], ["cqlgate"]])
    Objects(readme()[0], "--values", chart.DEPLOY / "clouds" / "aws-nlb.yaml")
