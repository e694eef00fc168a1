"""The example, the Dockerfile, and what the gateway itself says of the rendered files."""
import json
import re
import subprocess
import tempfile
import tomllib
from pathlib import Path

import yaml
from rig import cache, certificates, gateway

import chart
from chart import Objects, defaults
from check import EVERYTHING, check, config, equal, kubernetes

from . import addresses


@check
def example_is_fit_to_be_exposed():
    found = list(yaml.safe_load_all((chart.DEPLOY / "example" / "cassandra.yaml").read_text()))
    kinds = {o["kind"]: o for o in found}
    service, workload = kinds["Service"]["spec"], kinds["StatefulSet"]["spec"]
    equal((service["clusterIP"], service["publishNotReadyAddresses"]), ("None", True))
    equal(workload["serviceName"], kinds["Service"]["metadata"]["name"])
    equal([p["name"] for p in service["ports"]], ["cql", "internode"])
    equal(workload["podManagementPolicy"], "OrderedReady")
    assert workload.get("minReadySeconds", 0) >= 30, "the port is open before the peers see the node up"
    equal(kinds["PodDisruptionBudget"]["spec"]["maxUnavailable"], 1)
    container = workload["template"]["spec"]["containers"][0]
    equal(container["readinessProbe"]["tcpSocket"], {"port": "cql"})
    told = {e["name"]: e.get("value") for e in container["env"]}
    seeds = told["CASSANDRA_SEEDS"].split(",")
    equal(seeds, [f"cassandra-{n}.cassandra.db.svc.cluster.local" for n in (0, 1)])
    equal(told["CASSANDRA_BROADCAST_RPC_ADDRESS"], "$(POD_IP)")
    # What the gateway looks for by default is what stands here.
    discovery = defaults().config()["discovery"]["kubernetes"]
    equal(discovery["service"], kinds["Service"]["metadata"]["name"])
    labels = workload["template"]["metadata"]["labels"]
    for selector in (service["selector"], workload["selector"]["matchLabels"], kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= labels.items(), selector


@check
def dockerfile_ends_in_an_image_without_a_shell_or_root():
    text = (chart.DEPLOY / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.M)
    equal(len(stages), 2)
    assert re.fullmatch(r"rust:1\.\d+-bookworm", stages[0]), stages
    equal(stages[1], "gcr.io/distroless/cc-debian12:nonroot")
    final = text.split(f"FROM {stages[1]}")[1]
    equal(re.findall(r"^(USER|ENTRYPOINT|CMD) (.*)", final, re.M), [
        ("USER", "65532:65532"), ("ENTRYPOINT", '["/usr/local/bin/cqlgate"]'), ("CMD", '["run", "--config", "/etc/cqlgate/cqlgate.yaml"]')])
    assert "RUN" not in final, "there is nothing in the image that could run it"
    equal(json.loads(re.search(r"^CMD (.*)", final, re.M)[1]), defaults().container()["args"])
    wanted = re.search(r'^rust-version = "1\.(\d+)"', (cache.CHECKOUT / "Cargo.toml").read_text(), re.M)
    assert int(re.search(r"1\.(\d+)", stages[0])[1]) >= int(wanted[1]), "the builder is older than Cargo.toml allows"
    equal(re.search(r'^appVersion: (\S+)', (chart.CHART / "Chart.yaml").read_text(), re.M)[1],
          re.search(r'^version = "(\S+)"', (cache.CHECKOUT / "Cargo.toml").read_text(), re.M)[1], "appVersion and Cargo.toml")


@check
def dockerfile_copies_what_dockerignore_lets_in():
    ignore = (chart.DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.*)", (chart.DEPLOY / "Dockerfile").read_text(), re.M):
        copied.update(line.split()[:-1])
    equal(copied, let_in)
    for name in copied:
        assert (cache.CHECKOUT / name).exists(), name
    # Cargo builds nothing from a manifest that names a file which is not there.
    manifest = tomllib.loads((cache.CHECKOUT / "Cargo.toml").read_text())
    named = {target.get("path", f"{folder}/{target['name']}.rs") for kind, folder in
             (("bench", "benches"), ("test", "tests"), ("example", "examples")) for target in manifest.get(kind, ())}
    equal(named - copied, set())
    source = cache.CHECKOUT / "src"
    for file in source.rglob("*.rs"):
        for name in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', file.read_text()):
            assert (file.parent / name).resolve().is_relative_to(source), f"{file} includes {name}, which is not copied"


@check
def program_needs_only_the_libraries_of_the_image():
    """gcr.io/distroless/cc has glibc and libgcc_s; what else the linker would want cannot be there."""
    linked = subprocess.run(["ldd", gateway.build()], capture_output=True, text=True, check=True).stdout
    names = {line.split()[0].rpartition("/")[2] for line in linked.splitlines()}
    allowed = re.compile(r"linux-vdso\.so\.1|ld-linux-.*|lib(c|m|gcc_s|pthread|dl|rt)\.so\.\d+")
    equal([name for name in sorted(names) if not allowed.fullmatch(name)], [])


def mount(found, place):
    """The Secrets that the pod mounts, as files under `place`."""
    files = {"tls.crt": "gateway.pem", "tls.key": "gateway.key", "ca.crt": "ca.pem", "crl.pem": "ca.crl", "password": "ca.pem"}
    for source in next(v for v in found.pod()["volumes"] if v["name"] == "config")["projected"]["sources"]:
        for item in source.get("secret", {}).get("items", []):
            path = place / item["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((place / "made" / files[path.name]).read_bytes())


@check
def gateway_accepts_every_rendered_file():
    """`cqlgate check` of what the chart renders, with the secrets where they would be mounted."""
    binary = gateway.build()
    racks = [{"name": "rack-a", "ports": "9042-9051"}, {"name": "rack-b", "ports": "9052-9061", "first_ordinal": 1}]
    cases = {
        "defaults": {}, "everything": EVERYTHING, "racks": kubernetes(statefulSets=racks), "address": kubernetes(dial="address"),
        "another namespace": kubernetes(namespace="cassandra", service="scylla", port=9142),
        "no state": {"state": {"enabled": False}}, "no TLS verification": config(tls={"nodes": {"verify": "off"}}),
        "nodes": config(advertise="203.0.113.10", discovery={"nodes": [{"name": "a", "address": "10.0.0.1"}]}),
        "contact points": config(discovery={"contact_points": ["10.0.0.1"]}) | {"replicas": 1},
        "dns": config(discovery={"dns": "cassandra.db.svc.cluster.local"}),
        "dual stack": config(listen="[::]:9042-9061", admin="[::]:9180"),
        "two load balancers": addresses.HUNDRED | addresses.service(parts=addresses.TWO),
        "a Service for each node": addresses.service(perNode=True), "for one": addresses.service(perNode=True) | config(listen="[::]:9042"),
        "paths": config(paths=[addresses.INSIDE, addresses.OUTSIDE]) | addresses.service(externalTrafficPolicy="Local"),
    }
    cases |= {f"README.md, several addresses: {number}": values for number, values in enumerate(addresses.readme())}
    for cloud in sorted([*(chart.DEPLOY / "clouds").glob("*.yaml"), *(chart.DEPLOY / "operators").glob("*.yaml")]):
        cases[cloud.name] = yaml.safe_load(cloud.read_text())
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        certificates.revocations(certificates.make(place / "made"))
        for name, values in cases.items():
            found = Objects(values)
            mount(found, place)
            file = place / "cqlgate.yaml"
            file.write_text(found.config_text().replace("/var/lib/cqlgate/", f"{place}/"))
            done = subprocess.run([binary, "check", file], capture_output=True, text=True)
            assert done.returncode == 0, f"{name}: {done.stderr}\n{file.read_text()}"
