"""Load balancers have limits, and some values exclude each other: said at install."""
import chart
from chart import Objects, refusal
from check import check, config, equal, kubernetes


@check
def each_clouds_values_render():
    clouds = {path.stem: Objects({}, "--values", path) for path in sorted((chart.DEPLOY / "clouds").glob("*.yaml"))}
    equal(sorted(clouds), ["aws-nlb", "azure", "gke", "gke-internal", "metallb", "metallb-per-node"])
    for name, found in clouds.items():
        services = [o for o in found.all if o["kind"] == "Service" and o["metadata"]["name"] != "cqlgate-admin"]
        assert services and all(o["spec"]["type"] == "LoadBalancer" for o in services), name


@check
def each_operators_values_name_the_service_of_all_pods():
    found = {path.stem: Objects({}, "--values", path).config()["discovery"]["kubernetes"] for path in sorted((chart.DEPLOY / "operators").glob("*.yaml"))}
    equal({name: keys["service"] for name, keys in found.items()},
          {"bitnami": "cassandra-headless", "k8ssandra": "demo-dc1-all-pods-service", "scylla-operator": "demo-client"})


@check
def a_range_beyond_the_load_balancers_limit_is_refused_at_install():
    def many(count, provider, **service):
        return config(listen=f"0.0.0.0:10001-{10000 + count}") | {"loadBalancer": {"provider": provider}, "service": service}

    Objects(many(50, "aws"))
    assert "51 ports, and an AWS Network Load Balancer has at most 50 listeners" in refusal(many(51, "aws"))
    Objects(many(300, "azure"))
    assert "301 ports, and an Azure load balancer has at most 300 rules" in refusal(many(301, "azure"))
    Objects(many(2000, "gke"))
    assert "2001 ports, and each takes one of the cluster's 2768 node ports" in refusal(many(2001, "gke"))
    Objects(many(2001, "metallb", allocateLoadBalancerNodePorts=False))
    assert "needs the target type ip" in refusal(many(20, "aws", allocateLoadBalancerNodePorts=False))
    Objects(many(51, "aws", type="ClusterIP") | config(listen="0.0.0.0:10001-10051", advertise="h"))


@check
def aws_is_known_by_its_class_and_its_annotations():
    def many(**service):
        return config(listen="0.0.0.0:10001-10051") | {"service": service}

    scheme = {"service.beta.kubernetes.io/aws-load-balancer-scheme": "internal"}
    for service in ({"loadBalancerClass": "service.k8s.aws/nlb"}, {"annotations": scheme}):
        assert "at most 50 listeners" in refusal(many(**service)), service
        assert "needs the target type ip" in refusal({"service": service | {"allocateLoadBalancerNodePorts": False}})
        Objects(many(**service) | {"loadBalancer": {"provider": "metallb"}})
    Objects(many(loadBalancerClass="networking.gke.io/l4-regional-external", annotations={"example.com/pool": "a"}))


@check
def a_rolling_update_on_aws_waits_for_targets_to_be_registered():
    """With ip targets it takes minutes from a ready pod to a healthy target, and no other pod may go meanwhile."""
    found = Objects({}, "--values", chart.DEPLOY / "clouds" / "aws-nlb.yaml").find("Deployment")["spec"]
    assert found["minReadySeconds"] >= 180, found["minReadySeconds"]
    equal(found["strategy"]["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})


@check
def notes_say_what_will_surprise():
    def notes(values):
        return chart.run("install", "cqlgate", chart.CHART, "--namespace", "db", "--dry-run=client", values=values).split("NOTES:")[1]

    assert "WARNING" not in notes({}) and "20 ports, 9042 to 9061, in front of the Service cassandra in namespace db." in notes({})
    assert "WARNING: 51 ports, and loadBalancer.provider is not set" in notes(config(listen="0.0.0.0:9042-9092"))
    assert "WARNING: 46 of the 50 listeners" in notes(config(listen="0.0.0.0:9042-9087") | {"loadBalancer": {"provider": "aws"}})
    assert "cannot be shared" in notes({"loadBalancer": {"provider": "gke-internal"}})
    assert "without traffic" in notes({"loadBalancer": {"provider": "gke"}})
    assert "one replica" in notes({"replicas": 1})
    assert "EndpointSlices alone" in notes({"rbac": {"watchPods": False}})
    unwatched = {"rbac": {"watchPods": False}, "credentials": {"secret": "role"}}
    assert "WARNING: over plain TCP no pod is sent the password in role" in notes(unwatched)
    assert "over plain TCP" not in notes(unwatched | {"tls": {"nodes": {"secret": "ca"}}}) + notes(unwatched | config(probe={"plain_password": "always"}))
    assert " & " not in notes({}), "a forward in the background is not there yet when the next command asks"


@check
def values_that_cannot_work_together_are_refused():
    assert "within config.listen" in refusal(config(admin="0.0.0.0:9050"))
    assert "kubelet" in refusal(config(admin="127.0.0.1:9180"))
    assert "must end after its begin" in refusal(config(listen="0.0.0.0:9061-9042"))
    assert "before 65536" in refusal(config(listen="0.0.0.0:65000-70000"))
    assert "2 replicas" in refusal(config(discovery={"contact_points": ["h"]}))
    assert "must say what clients dial" in refusal({"service": {"type": "ClusterIP"}})
    assert "dnsNames or ipAddresses" in refusal({"certificate": {"create": True, "issuerRef": {"name": "x"}}})
    outside = [{"name": "rack-a", "ports": "9042-9051"}, {"name": "rack-b", "ports": "9052-9062"}]
    assert "9052-9062 of rack-b are outside" in refusal(kubernetes(statefulSets=outside))
    Objects(config(discovery={"contact_points": ["h"]}) | {"replicas": 1})
