"""What the rig needs from package registries, fetched once with the ordinary clients and kept outside the checkout.

`$CQLGATE_CACHE`, by default `~/.cache/cqlgate`. Every entry is made in a place of its own and marked by a stamp that
names what was asked for: a changed version or a half-made entry is made again.
"""
import fcntl
import hashlib
import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

ROOT = Path(os.environ.get("CQLGATE_CACHE") or Path.home() / ".cache" / "cqlgate")
# What one run writes: configurations, logs, data. A rig beside the usual one (net.RIG) has its own.
RUN = ROOT / f"run{os.environ.get('CQLGATE_RIG') or ''}"
HERE = Path(__file__).resolve().parent.parent
CHECKOUT = HERE.parent.parent


class Missing(Exception):
    """A tool that the rig cannot fetch by itself."""


def run(*command, cwd=None, env=None):
    """Runs a package client at low priority; its output appears only when it fails."""
    done = subprocess.run(
        ["nice", "-n", "5", *map(str, command)], cwd=cwd, env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    if done.returncode != 0:
        raise Missing(f"{' '.join(map(str, command))} failed:\n{done.stdout[-4000:]}")
    return done.stdout


def entry(name, wanted, make, keep=False):
    """The directory `name`, made by `make(directory)` unless its stamp says that it holds `wanted` already."""
    place = ROOT / name
    stamp = place / ".made-from"

    def made():
        return stamp.exists() and stamp.read_text() == wanted

    if made():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place.parent / f".{place.name}.lock", "w") as held:
        # Another rig may be making it: what it has made is taken.
        fcntl.flock(held, fcntl.LOCK_EX)
        if made():
            return place
        if place.exists() and not keep:
            shutil.rmtree(place)
        place.mkdir(parents=True, exist_ok=True)
        print(f"fetching {name} …", flush=True)
        make(place)
        stamp.write_text(wanted)
    return place


def digest(*paths):
    seen = hashlib.sha256()
    for path in sorted(paths):
        seen.update(path.name.encode() + path.read_bytes())
    return seen.hexdigest()


@lru_cache
def nft():
    """The command that runs `nft`: the machine's own, or one unpacked from Debian's packages."""
    own = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if own:
        return [own]
    packages = ["nftables", "libnftables1", "libnftnl11", "libjansson4", "libmnl0", "libxtables12", "libedit2"]

    def make(place):
        run("apt-get", "update")
        run("apt-get", "download", *packages, cwd=place)
        for package in place.glob("*.deb"):
            run("dpkg", "-x", package, place / "root")

    root = entry("nft", " ".join(packages), make) / "root"
    libraries = ":".join(str(p) for p in (*root.glob("usr/lib/*-linux-gnu"), *root.glob("lib/*-linux-gnu")))
    return ["env", f"LD_LIBRARY_PATH={libraries}", str(root / "usr/sbin/nft")]


POM = """<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>jars</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>{}</dependencies>
</project>
"""


def jars(name, coordinates, exclusions=()):
    """The directory with the jars of Maven `coordinates` (group:artifact:version) and all that they need."""
    def dependency(coordinate):
        group, artifact, version = coordinate.split(":")
        out = "".join(
            "<exclusion><groupId>{}</groupId><artifactId>{}</artifactId></exclusion>".format(*e.split(":"))
            for e in exclusions
        )
        return (f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
                f"<version>{version}</version><exclusions>{out}</exclusions></dependency>")

    pom = POM.format("".join(map(dependency, coordinates)))

    def make(place):
        (place / "pom.xml").write_text(pom)
        run("mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime",
            f"-DoutputDirectory={place / 'lib'}", cwd=place)

    return entry(name, pom, make) / "lib"


def python(name, packages):
    """The interpreter of a virtual environment that holds `packages`."""
    def make(place):
        run("python3", "-m", "venv", place)
        run(place / "bin/pip", "install", "-q", "--disable-pip-version-check", *packages)

    return entry(name, " ".join(packages), make) / "bin" / "python"
