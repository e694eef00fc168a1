"""The files of deploy/ that are written from others, and must be equal to them."""
import json

import chart
from rig import cache

MANIFESTS = chart.DEPLOY / "manifests" / "cqlgate.yaml"
SCHEMA = chart.CHART / "values.schema.json"
HEAD = """# Rendered from the chart with its default values by `tests/deploy/run --update`; not to be edited. The image is a placeholder: build
# your own with deploy/Dockerfile, push it, and write its name below.
# In front of the headless Service `cassandra` in the namespace `db`, which exists already (deploy/example/ has both).
"""


def manifests():
    return HEAD + chart.template()


def configuration():
    """proxy-config/schema.json as a part of the values' schema: the same keys, none of them required by Helm, because the
    chart adds what is absent and the gateway itself checks the rest."""
    whole = json.loads((cache.CHECKOUT / "proxy-config" / "schema.json").read_text())
    definitions = whole.pop("$defs")
    whole.pop("$schema", None)
    whole.pop("required", None)
    for filled in ("Kubernetes", "ClientTls"):
        definitions.get(filled, {}).pop("required", None)

    def renamed(value):
        if isinstance(value, dict):
            return {key: f"#/$defs/config.{inner.removeprefix('#/$defs/')}" if key == "$ref" else renamed(inner)
                    for key, inner in value.items()}
        return [renamed(inner) for inner in value] if isinstance(value, list) else value

    return renamed(whole), {f"config.{name}": renamed(inner) for name, inner in definitions.items()}


def schema():
    """The values' schema with the configuration's part as it should be; the rest is written by hand."""
    values = json.loads(SCHEMA.read_text())
    config, definitions = configuration()
    values["properties"]["config"] = config
    own = {name: inner for name, inner in values["$defs"].items() if not name.startswith("config.")}
    values["$defs"] = own | definitions
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def update():
    SCHEMA.write_text(schema())
    MANIFESTS.parent.mkdir(exist_ok=True)
    MANIFESTS.write_text(manifests())
