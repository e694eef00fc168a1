"""HAProxy, Debian's: as the load balancer in front of gateways, and in a gateway's place to compare."""
import os
import shutil
import socket
import subprocess

from . import cache
from .wait import until

# Sections of a configuration before those that listen.
DEFAULTS = "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"


def program():
    """The machine's own, or Debian's."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    if not shutil.which("haproxy", path=path):
        cache.run("apt-get", "install", "-y", "--no-install-recommends", "haproxy")
    return shutil.which("haproxy", path=path)


def ask(where, command):
    """What is answered at a stats socket."""
    with socket.socket(socket.AF_UNIX) as stats:
        stats.connect(str(where))
        stats.sendall(command.encode() + b"\n")
        with stats.makefile() as said:
            return said.read()


class HAProxy:
    """Runs `text` in a namespace, in the foreground; its files are in `home`. It listens at `where` (an `ss` filter) when this is made."""

    def __init__(self, namespace, home, text, where=None):
        home.mkdir(parents=True, exist_ok=True)
        (home / "cfg").write_text(text)
        self.log = home / "out.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(["ip", "netns", "exec", namespace, program(), "-f", str(home / "cfg"), "-db"], stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, start_new_session=True)
        if where:
            listens = ["ip", "netns", "exec", namespace, "ss", "-Hltn", where]
            until("HAProxy listens", lambda: subprocess.run(listens, capture_output=True).stdout, 10, during=self.alive)

    def alive(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"HAProxy ended with {self.process.returncode}:\n{self.log.read_text()}")

    def stop(self):
        self.process.kill()
        self.process.wait()
