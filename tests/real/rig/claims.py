"""Whether a request has the values that it claims to have; releases before 5.0 allocate what is claimed, and end of it.

Read as nodes read it (apache/cassandra `transport/Message.java`, `transport/messages/`, `cql3/QueryOptions.java`). Texts and paging states
are not among what is looked for: nodes compare the lengths of those with what there is, in 4.1, too. But in v5 they read on behind a body
that ends early, and take the next frame of the segment for values.
"""
from . import cql
from .speaker import PAYLOAD


class Claim(Exception):
    """A value is not there."""


class Refused(Exception):
    """A node reads no further."""


class Reader(cql.Reader):
    def claimed(self):
        """A [bytes] or [value]."""
        count = self.int()
        if count > len(self.raw) - self.at:
            raise Claim
        self.take(max(0, count))

    def short_bytes(self):
        self.take(self.short())

    def text(self):
        self.take(max(0, self.int()))

    def repeated(self, *each):
        for _ in range(self.short()):
            for read in each:
                read()

    def parameters(self, version):
        self.short()
        flags = self.int() if version >= 5 else self.take(1)[0]
        if flags & 0x01:
            self.repeated(*((self.short_bytes, self.claimed) if flags & 0x40 else (self.claimed,)))

    def request(self, version, opcode, flags):
        if flags & PAYLOAD:
            self.repeated(self.short_bytes, self.claimed)
        if opcode == cql.AUTH_RESPONSE:
            self.claimed()
        elif opcode == cql.PREPARE:
            self.text()
        elif opcode == cql.QUERY:
            self.text()
            self.parameters(version)
        elif opcode == cql.EXECUTE:
            self.short_bytes()
            if version >= 5:
                self.short_bytes()
            self.parameters(version)
        elif opcode == cql.BATCH:
            self.take(1)
            for _ in range(self.short()):
                {0: self.text, 1: self.short_bytes}.get(self.take(1)[0], self.refused)()
                self.repeated(self.claimed)
            self.parameters(version)

    def refused(self):
        raise Refused


def fit(version, opcode, flags, body):
    """`body` is what the node will have after it was decompressed."""
    try:
        Reader(body).request(version, opcode, flags)
    except Claim:
        return False
    except Refused:
        return True
    except EOFError:
        return version < 5
    return True
