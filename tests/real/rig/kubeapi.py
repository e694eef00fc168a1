"""The apiserver asked over HTTPS, as the administrator: quicker than a kubectl for what a test does hundreds of times."""
import json
import ssl
import urllib.error
import urllib.request

MERGE = "application/merge-patch+json"
# How the audit log names what is asked from here, with whoever's token.
AGENT = "Python-urllib"


class Refused(Exception):
    """The apiserver answered with an error: `code`, and its Status message."""

    def __init__(self, code, text):
        super().__init__(f"{code} {text}")
        self.code = code


class Api:
    def __init__(self, address, ca, token):
        self.base = f"https://{address}:6443"
        self.ca, self.token = ca, token

    def ask(self, method, path, body=None, content="application/json", timeout=10):
        """The answer as a dict; an answer that is no JSON (`/readyz`) as text."""
        request = urllib.request.Request(self.base + path, method=method, data=None if body is None else json.dumps(body).encode(),
                                         headers={"Authorization": f"Bearer {self.token}", "Content-Type": content})
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=ssl.create_default_context(cafile=str(self.ca))) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode(errors="replace")[:500]) from None
        return json.loads(text) if text.startswith("{") else text

    def get(self, path):
        """None where there is none."""
        try:
            return self.ask("GET", path)
        except Refused as refused:
            if refused.code == 404:
                return None
            raise

    def make(self, path, body):
        """An object of that name that is there already stays as it is."""
        try:
            return self.ask("POST", path, body)
        except Refused as refused:
            if refused.code == 409:
                return None
            raise

    def patch(self, path, body):
        return self.ask("PATCH", path, body, MERGE)

    def delete(self, path, seconds=None):
        """`seconds` of grace; 0 takes the object away at once, None leaves it to the object."""
        try:
            return self.ask("DELETE", path, None if seconds is None else
                            {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": seconds})
        except Refused as refused:
            if refused.code == 404:
                return None
            raise


def namespaced(namespace, kind, name="", group=None):
    """The path of a namespaced object or, without `name`, of all of a kind; `group` as in `apps/v1`."""
    root = f"/apis/{group}" if group else "/api/v1"
    return f"{root}/namespaces/{namespace}/{kind}" + (f"/{name}" if name else "")
