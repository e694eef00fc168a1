"""The chart as Helm renders it: values in, objects out."""
import subprocess
from functools import lru_cache

import yaml
from rig import cache, helm

DEPLOY = cache.CHECKOUT / "deploy"
CHART = DEPLOY / "helm" / "cqlgate"
# There is no image to fall back on; a name that nobody can own.
IMAGE = "registry.example.com/cqlgate"


class Refused(Exception):
    """Helm's own words."""


def run(*arguments, values=None):
    """`values` with an image where they name none; None where the command takes no values."""
    command = [helm.program(), *map(str, arguments)]
    if values is not None:
        values = {"image": {"repository": IMAGE}} | values
        command += ["--values", "-"]
    done = subprocess.run(command, input=yaml.safe_dump(values), capture_output=True, text=True)
    if done.returncode != 0:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


def template(values=None, *arguments, namespace="db", release="cqlgate"):
    """The text of all objects. The namespace of the release is Cassandra's own unless said otherwise."""
    return run("template", release, CHART, "--namespace", namespace, *arguments, values=values or {})


class Objects:
    """The rendered objects of some values."""

    def __init__(self, values=None, *arguments, **options):
        self.all = [o for o in yaml.safe_load_all(template(values, *arguments, **options)) if o]

    def find(self, kind, name="cqlgate"):
        found = [o for o in self.all if o["kind"] == kind and o["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} objects {kind} {name} among {self.names()}"
        return found[0]

    def has(self, kind):
        return any(o["kind"] == kind for o in self.all)

    def names(self):
        return sorted((o["kind"], o["metadata"]["name"]) for o in self.all)

    def config(self):
        """The gateway's file, parsed."""
        return yaml.safe_load(self.config_text())

    def config_text(self):
        return self.find("ConfigMap")["data"]["cqlgate.yaml"]

    def pod(self):
        return self.find("Deployment")["spec"]["template"]["spec"]

    def container(self):
        return self.pod()["containers"][0]

    def rights(self):
        """Every (namespace, group, resource, names, verb) that the Roles give, sorted."""
        given = set()
        for role in (o for o in self.all if o["kind"] == "Role"):
            for rule in role["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        for verb in rule["verbs"]:
                            names = ",".join(rule.get("resourceNames", []))
                            given.add((role["metadata"]["namespace"], group, resource, names, verb))
        return sorted(given)


def refusal(values, *arguments):
    """Why these values are refused."""
    try:
        template(values, *arguments)
    except Refused as error:
        return str(error)
    raise AssertionError(f"{values} is accepted")


@lru_cache
def defaults():
    return Objects()
