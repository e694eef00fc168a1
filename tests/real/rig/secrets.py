"""Passwords, private keys and tokens that the rig gives to a gateway, and none of which is in anything that the gateway says: looked for in
each gateway's log, in what else it wrote, and in its pages, when it ends.
"""
import base64
import subprocess
from functools import lru_cache

from . import cache

# Files in a gateway's home that the rig wrote, with what is in them.
GIVEN = ("password", "serviceaccount", "cqlgate.yaml", "cqlgate.new")
PAGES = ("/topology", "/metrics", "/readyz", "/livez")
# What is shorter may be anything.
LINE = 24


def forms(secret):
    """As text; as bytes, in the ways in which programs print them; and in base64, at each of the three places in a group."""
    raw = secret.encode()
    said = [secret, raw.hex(), raw.hex(" "), raw.hex().upper(), ", ".join(map(str, raw)), ",".join(map(str, raw))]
    # The groups that are of the secret alone.
    return said + [base64.b64encode(raw[skipped:skipped + (len(raw) - skipped) // 3 * 3]).decode() for skipped in range(3)]


@lru_cache(maxsize=None)
def of_key(text):
    """The lines of PEM, and their bytes; but for those that are all of the public key, which certificates have too."""
    public = subprocess.run(["openssl", "pkey", "-pubout", "-outform", "DER"], input=text.encode(), capture_output=True).stdout
    lines = [line for line in text.splitlines() if not line.startswith("-----") and len(line) >= LINE]
    raw = {line: base64.b64decode(line + "=" * (-len(line) % 4)) for line in lines}
    return [form for line in lines if raw[line] not in public for form in (line, raw[line].hex(), ", ".join(map(str, raw[line])))]


def of_token(text):
    """A JWT is as good as its signature."""
    return forms(text.rsplit(".", 1)[-1])


class Searched:
    """Of a whole run."""

    def __init__(self):
        self.passwords, self.tokens = set(), set()
        self.gateways, self.bytes, self.secrets, self.found = 0, 0, set(), []

    def planted(self):
        """(whose, form) of all that the rig has planted so far."""
        found = [(f"the password {password}", form) for password in self.passwords for form in forms(password)]
        found += [("a token", form) for token in self.tokens for form in of_token(token)]
        for key in sorted(cache.RUN.rglob("*.key")):
            if key.is_file():
                found += [(f"{key.name}", form) for form in of_key(key.read_text(errors="replace"))]
        return found

    def pages(self, gateway):
        """What it shows now; a gateway that is gone, or is stopped because it does not answer, shows nothing."""
        shown = {}
        for page in PAGES:
            try:
                shown[page] = gateway.admin(page)
            except OSError:
                continue
        return shown

    def search(self, gateway, pages):
        said = {path.relative_to(gateway.home): path.read_text(errors="replace") for path in gateway.home.rglob("*")
                if path.is_file() and path.relative_to(gateway.home).parts[0] not in GIVEN}
        said.update(pages)
        planted = self.planted()
        self.gateways += 1
        self.bytes += sum(map(len, said.values()))
        self.secrets |= {whose for whose, _ in planted}
        self.found += [f"{gateway.home.name}, {where}: {whose}, as {form}" for where, text in said.items() for whose, form in planted if form in text]

    def outcome(self):
        return "failed" if self.found else "ok" if self.secrets else "-"

    def told(self):
        searched = f"{len(self.secrets)} secrets, {self.bytes // 1024} KiB at {self.gateways} ends of gateways"
        return f"{searched}: {'; '.join(self.found)}" if self.found else f"{searched}: none"


SEARCHED = Searched()
