"""Just enough of the native protocol, v4, to ask a node a question and to read the rows of its answer.

One request at a time on one connection, no compression. `Connection` is also what the capture program of
`tests/golden` builds its frames with; nothing here is used by the gateway.
"""
import ipaddress
import socket
import ssl
import struct
import uuid

ERROR, STARTUP, READY, AUTHENTICATE, OPTIONS, SUPPORTED = 0x00, 0x01, 0x02, 0x03, 0x05, 0x06
QUERY, RESULT, PREPARE, EXECUTE, REGISTER, EVENT, BATCH = 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D
AUTH_CHALLENGE, AUTH_RESPONSE, AUTH_SUCCESS = 0x0E, 0x0F, 0x10


class Refused(Exception):
    """The node answered ERROR: `code` and its text."""

    def __init__(self, code, text):
        super().__init__(f"0x{code:04x} {text}")
        self.code = code


def string(text):
    raw = text.encode()
    return struct.pack(">H", len(raw)) + raw


def long_string(text):
    raw = text.encode()
    return struct.pack(">i", len(raw)) + raw


def value(raw):
    return struct.pack(">i", -1) if raw is None else struct.pack(">i", len(raw)) + raw


def string_map(pairs):
    return struct.pack(">H", len(pairs)) + b"".join(string(k) + string(v) for k, v in pairs.items())


def string_list(items):
    return struct.pack(">H", len(items)) + b"".join(map(string, items))


def frame(version, opcode, body, stream=0, flags=0):
    """[version][flags][stream int16][opcode][length int32][body], native_protocol_v4.spec section 2."""
    return struct.pack(">BBhBi", version, flags, stream, opcode, len(body)) + body


class Reader:
    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def take(self, count):
        self.at += count
        if self.at > len(self.raw):
            raise EOFError("the body is too short")
        return self.raw[self.at - count:self.at]

    def int(self):
        return struct.unpack(">i", self.take(4))[0]

    def short(self):
        return struct.unpack(">H", self.take(2))[0]

    def string(self):
        return self.take(self.short()).decode()

    def value(self):
        count = self.int()
        return None if count < 0 else self.take(count)

    def option(self):
        """A column's type: its id, with the inner types of collections."""
        kind = self.short()
        if kind == 0:
            return kind, self.string()
        if kind in (0x20, 0x22):
            return kind, self.option()
        if kind == 0x21:
            return kind, (self.option(), self.option())
        if kind == 0x30:
            self.string(), self.string()
            return kind, [(self.string(), self.option()) for _ in range(self.short())]
        if kind == 0x31:
            return kind, [self.option() for _ in range(self.short())]
        return kind, None


def decode(kind, raw):
    if raw is None:
        return None
    kind, inner = kind
    if kind in (0x01, 0x0A, 0x0D):
        return raw.decode()
    if kind in (0x02, 0x05, 0x09, 0x13, 0x14):
        return int.from_bytes(raw, "big", signed=True)
    if kind in (0x0C, 0x0F):
        return uuid.UUID(bytes=raw)
    if kind == 0x10:
        return str(ipaddress.ip_address(raw))
    if kind in (0x20, 0x22):
        reader = Reader(raw)
        return [decode(inner, reader.value()) for _ in range(reader.int())]
    return raw


def rows(body):
    """A RESULT body of kind Rows as a list of dicts; [] for the other kinds."""
    reader = Reader(body)
    if reader.int() != 2:
        return []
    flags, count = reader.int(), reader.int()
    if flags & 0x02:
        reader.value()
    if flags & 0x08:
        reader.take(reader.short())
    if flags & 0x01:
        reader.string(), reader.string()
    columns = []
    for _ in range(count):
        if not flags & 0x01:
            reader.string(), reader.string()
        columns.append((reader.string(), reader.option()))
    return [{name: decode(kind, reader.value()) for name, kind in columns} for _ in range(reader.int())]


class Connection:
    """Version 4, one question at a time."""

    def __init__(self, address, port=9042, timeout=5, credentials=None, ca=None, pair=None, context=None, preface=b""):
        """`preface`: what a load balancer says first."""
        self.socket = socket.create_connection((address, port), timeout=timeout)
        self.socket.sendall(preface)
        if ca:
            context = ssl.create_default_context(cafile=str(ca))
            if pair:
                context.load_cert_chain(*pair)
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname=address)
        opcode, _ = self.ask(STARTUP, string_map({"CQL_VERSION": "3.0.0"}))
        if opcode == AUTHENTICATE:
            token = b"\0" + b"\0".join(part.encode() for part in credentials or ("", ""))
            self.ask(AUTH_RESPONSE, value(token))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def read(self, count):
        got = bytearray()
        while len(got) < count:
            piece = self.socket.recv(count - len(got))
            if not piece:
                raise EOFError("the node closed the connection")
            got += piece
        return bytes(got)

    def ask(self, opcode, body):
        self.socket.sendall(frame(4, opcode, body))
        head = self.read(9)
        _, flags, _, opcode, length = struct.unpack(">BBhBi", head)
        body = self.read(length)
        if flags & 0x08:
            warnings = Reader(body)
            for _ in range(warnings.short()):
                warnings.string()
            body = body[warnings.at:]
        if opcode == ERROR:
            reader = Reader(body)
            raise Refused(reader.int(), reader.string())
        return opcode, body

    def query(self, text):
        """Rows as dicts; consistency ONE, no paging."""
        return rows(self.ask(QUERY, long_string(text) + struct.pack(">HB", 1, 0))[1])
