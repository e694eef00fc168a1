"""Values: each has its place, and what is given comes out again."""
import json
import re

import yaml
from rig import cache

import chart
import generated
from chart import Objects, refusal
from check import EVERYTHING, check, config, equal, kubernetes


@check
def helm_lints_the_chart_with_every_set_of_values():
    chart.run("lint", "--strict", chart.CHART)
    chart.run("lint", "--strict", chart.CHART, values={})
    chart.run("lint", "--strict", chart.CHART, values=EVERYTHING)
    for cloud in sorted((chart.DEPLOY / "clouds").glob("*.yaml")):
        chart.run("lint", "--strict", chart.CHART, "--values", cloud)


@check
def manifests_are_what_the_chart_renders():
    equal(generated.MANIFESTS.read_text() == generated.manifests(), True, "run tests/deploy/run --update, and look at the difference")


@check
def schema_of_values_has_the_configurations_own_schema():
    equal(chart.CHART.joinpath("values.schema.json").read_text() == generated.schema(), True,
          "run tests/deploy/run --update, and look at the difference")


@check
def every_value_is_in_values_yaml_and_in_the_schema():
    def same(values, schema, path):
        if "$ref" in schema:
            schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
        if not isinstance(values, dict) or "properties" not in schema or path == "config":
            return
        equal(sorted(values), sorted(set(schema["properties"]) - {"global"}), f"keys of {path or 'values.yaml'}")
        for key in values:
            same(values[key], schema["properties"][key], f"{path}.{key}".lstrip("."))

    schema = json.loads(generated.SCHEMA.read_text())
    definitions = schema["$defs"]
    same(yaml.safe_load((chart.CHART / "values.yaml").read_text()), schema, "")


@check
def every_key_of_the_configuration_is_in_values_yaml():
    text = (chart.CHART / "values.yaml").read_text()
    schema = json.loads((cache.CHECKOUT / "proxy-config" / "schema.json").read_text())
    found = set()

    def keys(value):
        if isinstance(value, dict):
            found.update(value.get("properties", {}))
            for inner in value.values():
                keys(inner)
        elif isinstance(value, list):
            for inner in value:
                keys(inner)

    keys(schema)
    assert len(found) > 40, found
    missing = [key for key in sorted(found - {"ipv4", "ipv6"}) if not re.search(rf"\b{key}:", text)]
    equal(missing, [], "keys that values.yaml does not mention")


@check
def everything_has_every_key_of_the_configuration():
    def within(schema, found, path):
        """The keys that `schema` has and none of `found` has."""
        if "$ref" in schema:
            schema = whole["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        for choice in schema.get("anyOf", ()):
            within(choice, found, path)
        if "items" in schema:
            within(schema["items"], [item for value in found if isinstance(value, list) for item in value], f"{path}[]")
        for key, inner in schema.get("properties", {}).items():
            at = f"{path}.{key}".lstrip(".")
            if at in elsewhere:
                continue
            having = [value[key] for value in found if isinstance(value, dict) and key in value]
            if having:
                within(inner, having, at)
            else:
                missing.append(at)

    # One way of discovery excludes the others, and paths what is advertised; ranges of ports take the place of the ledger.
    elsewhere = {"discovery.nodes", "discovery.contact_points", "discovery.state_file", "discovery.dns", "advertise",
                 "discovery.kubernetes.statefulSets"}
    whole = json.loads((cache.CHECKOUT / "proxy-config" / "schema.json").read_text())
    missing = []
    within(whole, [Objects(EVERYTHING, namespace="gateway").config()], "")
    equal(missing, [], "keys that tests/deploy/everything.yaml does not have")


@check
def every_key_of_the_configuration_reaches_the_file():
    """Each file of proxy-config/ as `config`: all of it is in the rendered file, and what is added is none of its keys."""
    def within(wanted, found, path):
        if isinstance(wanted, dict):
            for key, inner in wanted.items():
                assert key in found, f"{path}.{key} is lost"
                within(inner, found[key], f"{path}.{key}")
        else:
            equal(found, wanted, path)

    for file in sorted((cache.CHECKOUT / "proxy-config").glob("*.yaml")):
        keys = yaml.safe_load(file.read_text()) | {"admin": "0.0.0.0:9180"}
        within(keys, Objects({"config": keys, "replicas": 1}).config(), file.name)


@check
def a_key_that_the_configuration_does_not_have_is_refused():
    assert "bogus" in refusal(config(bogus=1))
    assert "bogus" in refusal(config(limits={"bogus": 1}))
    assert "bogus" in refusal(kubernetes(bogus=1))
    assert "bogus" in refusal({"bogus": 1})
    assert "verify" in refusal(config(tls={"nodes": {"verify": False}})), "off without quotes is no text in YAML 1.1"


@check
def an_image_must_be_named():
    """None is published, and a name that nobody owns could become anybody's."""
    said = refusal({"image": {"tag": "0.1.0"}})
    assert "no image of cqlgate is published" in said and "image.repository=" in said, said
    equal(Objects({}).container()["image"], f"{chart.IMAGE}:0.1.0")
    equal(yaml.safe_load((chart.CHART / "values.yaml").read_text())["image"]["repository"], "")


@check
def numbers_stay_as_they_were_written():
    text = Objects(config(limits={"connections": 20_000_000})).config_text()
    assert "connections: 20000000" in text, text
