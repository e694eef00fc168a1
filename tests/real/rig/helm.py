"""Helm, built once from its Go module: it renders the chart for the tests of deploy/ and for the rig.

Always this version, never the machine's own: what is rendered is compared byte for byte.
"""
from functools import lru_cache

from . import cache

VERSION = "v4.3.1"
MODULE = "helm.sh/helm/v4"


@lru_cache
def program():
    """The path of `helm`; a few minutes of building when it is not in the cache."""
    install = ["go", "install", "-trimpath", "-ldflags", f"-s -w -X {MODULE}/internal/version.version={VERSION}",
               f"{MODULE}/cmd/helm@{VERSION}"]

    def make(place):
        cache.run(*install, env={"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOBIN": str(place)})

    return cache.entry(f"kubernetes-tools/helm-{VERSION}", " ".join(install), make) / "helm"
