"""The programs of a Kubernetes control plane, built from their sources by Go, with no container and nothing installed.

`realkube` is etcd, kube-apiserver, kube-controller-manager and kubectl in one binary (etcd is in Kubernetes' own module
graph), `coredns` has only the plugins that the rig asks for. About ten minutes on two cores from a cold machine; a build
that was cut short goes on from Go's build cache.
"""
from functools import lru_cache

from . import cache, helm

KUBERNETES, COREDNS = "1.36.3", "1.15.0"
ROLES = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"}


def build(program, version, flags="", names=()):
    """The directory with `program`, built from its module beside the rig, and links to it under `names`."""
    source = cache.HERE / "kubernetes" / program

    def make(place):
        cache.run("go", "build", "-trimpath", "-ldflags", f"-s -w {flags}".strip(), "-o", place / program, ".", cwd=source, env=ENVIRONMENT)
        for name in names:
            (place / name).symlink_to(program)

    files = [source / name for name in ("go.mod", "go.sum", "main.go")]
    return cache.entry(f"{program}-{version}", cache.digest(*files), make)


@lru_cache
def realkube():
    """The directory with the four programs. Without a version of its own the apiserver calls itself v0.0.0-master."""
    major, minor, _ = KUBERNETES.split(".")
    said = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean",
            "gitCommit": "0" * 40, "buildDate": "1970-01-01T00:00:00Z"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    flags = " ".join(f"-X {package}.{name}={value}" for package in packages for name, value in said.items())
    return build("realkube", KUBERNETES, flags, ROLES)


@lru_cache
def coredns():
    return build("coredns", COREDNS) / "coredns"


def prepare():
    """Builds what is missing, the longest first."""
    return realkube(), coredns(), helm.program()
