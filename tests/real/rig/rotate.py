"""Certificates that change all the time under clients that come all the time: a server's, each time with another key, and the CA of clients'.

Files change as kubelet changes a Secret's: the names are links through `..data`, which is renamed over. Some clients do nothing but shake hands,
some keep a connection and ask. None of either may fail, whatever comes of the files: now and then it is a pair that cannot be used.
"""
import shutil
import ssl
import threading
import time
from itertools import count, cycle

from . import assertions as a
from . import cache, certificates, cql, net
from .certified import Certified, adder, metric
from .gateway import FIRST_PORT
from .suites import ring_with_schema
from .wait import until

SHAKERS, ASKERS = 4, 4
# Of the server's rotations every tenth is the first half of one of the clients' CA (old and new), and the fifth after it the second (new alone).
BOTH_AT, NEW_AT, EVERY = 0, 5, 10
# Before every 25th comes a bad pair.
BAD_AT, BAD_EVERY = 13, 25
# Between two handshakes or requests of one client, in seconds: the machine is to rotate, too.
PAUSE = 0.02
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
RELOADS = "cqlgate_tls_reloads_total"


class Volume:
    """A directory as kubelet mounts a Secret."""

    def __init__(self, place):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        self.place, self.numbers, self.files = place, count(), {}

    def write(self, **files):
        """All at once, those that are not named as they were: tls_crt is the file tls.crt."""
        self.files |= files
        before = self.place / "..data"
        before = before.resolve() if before.exists() else None
        data = self.place / f"..{next(self.numbers)}"
        data.mkdir()
        for name, text in self.files.items():
            (data / name.replace("_", ".")).write_text(text)
            link = self.place / name.replace("_", ".")
            if not link.is_symlink():
                link.symlink_to(f"..data/{link.name}")
        (self.place / "..data_tmp").symlink_to(data.name)
        (self.place / "..data_tmp").rename(self.place / "..data")
        if before:
            shutil.rmtree(before)


class Clients:
    """Everybody shows `pair`, of the generation that is told beside it."""

    def __init__(self, keys, pair):
        self.keys, self.failures, self.going = keys, [], True
        self.shown = (0, self.context(pair))
        self.used = [0] * SHAKERS
        self.shaken, self.asked, self.slowest = [0] * SHAKERS, [0] * ASKERS, 0.0
        self.threads = [threading.Thread(target=work, args=(number,), daemon=True)
                        for work, many in ((self.shake, SHAKERS), (self.ask, ASKERS)) for number in range(many)]
        for thread in self.threads:
            thread.start()

    def context(self, pair):
        context = ssl.create_default_context(cafile=str(self.keys / "ca.pem"))
        context.load_cert_chain(*pair)
        return context

    def show(self, pair):
        """From the next handshake on; returns when nobody is in the middle of one with the former."""
        generation = self.shown[0] + 1
        self.shown = (generation, self.context(pair))
        until("every client shows the new certificate", lambda: min(self.used) >= generation, 30)

    def shake(self, number):
        while self.going:
            generation, context = self.shown
            self.used[number] = generation
            began = time.monotonic()
            try:
                reach(context).socket.close()
                self.shaken[number] += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
            except (OSError, EOFError, cql.Refused) as error:
                self.failures.append(f"a handshake: {error!r}")
            time.sleep(PAUSE)

    def ask(self, number):
        """One connection for all of it."""
        try:
            with reach(self.shown[1]) as connection:
                while self.going:
                    connection.query("SELECT v FROM k3.t WHERE k = 1")
                    self.asked[number] += 1
                    time.sleep(PAUSE)
        except (OSError, EOFError, cql.Refused) as error:
            self.failures.append(f"a request after {self.asked[number]}: {error!r}")

    def stop(self):
        self.going = False
        for thread in self.threads:
            thread.join(30)


def reach(context):
    return cql.Connection(net.gateway_inside(), FIRST_PORT, timeout=20, context=context)


class Rotation:
    def __init__(self, keys, volume, gateway):
        self.keys, self.volume, self.gateway = keys, volume, gateway
        self.taken, self.refused, self.old_refused, self.generation = 0, 0, 0, 0
        self.server = None
        self.bad = cycle((self.key_of_another, self.truncated, self.empty))

    def signed(self, file):
        """A server's certificate with a key of its own, as texts."""
        pair = certificates.sign(self.keys, "gateway", certificates.server(net.GATEWAY, net.gateway_inside()), file=file, key=EC)
        return [path.read_text() for path in pair]

    def authority(self):
        """The next CA of clients, and a client of it: the CA's text, and the pair."""
        self.generation += 1
        name = f"clients{self.generation % 2}"
        certificates.authority(self.keys, name, f"clients {self.generation}", key=EC)
        pair = certificates.sign(self.keys, "app", certificates.client(), by=name, file=f"app{self.generation % 2}", key=EC)
        return (self.keys / f"{name}.pem").read_text(), pair

    def change(self, **files):
        """Good files: taken, and shown from then on."""
        self.volume.write(**files)
        self.server = files.get("tls_crt", self.server)
        self.taken += 1
        until("the change is taken", lambda: metric(self.gateway, RELOADS + '{outcome="taken",side="clients"}') >= self.taken, 20, every=0.05)

    def is_shown(self, context):
        with reach(context) as connection:
            shown = ssl.DER_cert_to_PEM_cert(connection.socket.getpeercert(binary_form=True))
        if shown.split() != self.server.split():
            raise a.Failed(f"another certificate is shown after {self.taken} changes")

    def key_of_another(self):
        return {"tls_key": self.signed("another")[1]}

    def truncated(self):
        return {"tls_crt": self.signed("another")[0][:300]}

    def empty(self):
        return {"tls_crt": ""}

    def spoil(self, context):
        """Files that cannot be used: said once, and what was before goes on."""
        good = dict(self.volume.files)
        self.volume.write(**next(self.bad)())
        self.refused += 1
        until("the bad pair is refused", lambda: metric(self.gateway, RELOADS + '{outcome="refused",side="clients"}') >= self.refused, 20, every=0.05)
        self.is_shown(context)
        self.volume.files = good

    def former_is_refused(self, context):
        try:
            reach(context).socket.close()
        except (OSError, EOFError):
            self.old_refused += 1
            return
        raise a.Failed(f"a client of the former CA is served, {self.generation}")


def rotated(rotation, clients, rotations):
    began, ca, former = time.monotonic(), None, None
    for number in range(rotations):
        context = clients.shown[1]
        if number % BAD_EVERY == BAD_AT:
            rotation.spoil(context)
        certificate, key = rotation.signed("next")
        files = {"tls_crt": certificate, "tls_key": key}
        if number % EVERY == BOTH_AT:
            ca, pair = rotation.authority()
            rotation.change(**files, ca_crt=rotation.volume.files["ca_crt"] + ca)
            rotation.is_shown(context)
            clients.show(pair)
            former = context
        elif number % EVERY == NEW_AT:
            rotation.change(**files, ca_crt=ca)
            rotation.former_is_refused(former)
        else:
            rotation.change(**files)
        rotation.is_shown(clients.shown[1])
        if clients.failures:
            raise a.Failed(f"after {number} rotations: {clients.failures[:3]}")
        if number % 50 == 0:
            print(f"  {number} rotations, {sum(clients.shaken)} handshakes, {time.monotonic() - began:.0f} s", flush=True)
    return f"{rotations} server certificates, {rotation.generation} client CAs in {time.monotonic() - began:.0f} s, each shown from then on; the former CA's client refused {rotation.old_refused} times"


def none_failed(clients, done, what):
    failed = [failure for failure in clients.failures if what in failure]
    if failed:
        raise a.Failed(f"{len(failed)} failed: {failed[:3]}")
    return f"{sum(done)} {what}s of {len(done)} clients, 0 failed" + (f"; the slowest took {clients.slowest * 1000:.0f} ms" if what == "handshake" else ", on the connections of the start")


def run(report, rotations=1000):
    report.details = True
    keys = certificates.make(cache.RUN / "certificates")
    ring = ring_with_schema(count=1)
    volume = Volume(cache.RUN / "secret")
    rotation = Rotation(keys, volume, None)
    rotation.server, key = rotation.signed("next")
    ca, pair = rotation.authority()
    volume.write(tls_crt=rotation.server, tls_key=key, ca_crt=ca)
    place = volume.place
    gateway = Certified(ring, f"  clients: {{certificate: {place}/tls.crt, key: {place}/tls.key, client_auth: {{mode: required, ca: {place}/ca.crt}}}}\n").start()
    rotation.gateway = gateway
    clients = Clients(keys, pair)
    add = adder(report, "rotate")
    add("under load", "rotated", lambda: rotated(rotation, clients, rotations))
    clients.stop()
    add("under load", "handshakes", lambda: none_failed(clients, clients.shaken, "handshake"))
    add("under load", "requests", lambda: none_failed(clients, clients.asked, "request"))
    add("under load", "bad pairs", lambda: counted(gateway, rotation))
    gateway.stop()
    ring.kill()


def counted(gateway, rotation):
    found = [metric(gateway, RELOADS + f'{{outcome="{outcome}",side="clients"}}') for outcome in ("taken", "refused")]
    if found != [rotation.taken, rotation.refused]:
        raise a.Failed(f"taken and refused are counted {found}, were {[rotation.taken, rotation.refused]}")
    return f"{rotation.refused} that could not be used (the key of another, half a file, an empty one): nothing changed; {rotation.taken} taken"
