"""One recorded connection: frames out, frames in, every one of them written down as it was on the wire.

v3 and v4: body compression (native_protocol_v4.spec section 5: LZ4 with the length in front, Snappy as it is).
v5: after READY or AUTHENTICATE everything travels in segments (native_protocol_v5.spec section 2).
"""
import socket
import struct
import zlib

import lz4.block
import snappy

from rig import cql

OPCODES = {0x00: "ERROR", 0x01: "STARTUP", 0x02: "READY", 0x03: "AUTHENTICATE", 0x05: "OPTIONS", 0x06: "SUPPORTED",
           0x07: "QUERY", 0x08: "RESULT", 0x09: "PREPARE", 0x0A: "EXECUTE", 0x0B: "REGISTER", 0x0C: "EVENT",
           0x0D: "BATCH", 0x0E: "AUTH_CHALLENGE", 0x0F: "AUTH_RESPONSE", 0x10: "AUTH_SUCCESS"}
LONGEST_PAYLOAD = 131071


def crc24(raw):
    crc = 0x875060
    for byte in raw:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1974F0B
    return crc.to_bytes(3, "little")


def crc32(raw):
    return zlib.crc32(raw, zlib.crc32(b"\xfa\x2d\x55\xca")).to_bytes(4, "little")


def segments(raw, lz4_on):
    """The segments that carry `raw`: one self-contained, or several."""
    pieces = [raw[i:i + LONGEST_PAYLOAD] for i in range(0, len(raw), LONGEST_PAYLOAD)]
    for piece in pieces:
        alone = int(len(pieces) == 1)
        if lz4_on:
            small = lz4.block.compress(piece, store_size=False)
            payload, length = (small, len(piece)) if len(small) < len(piece) else (piece, 0)
            head = (len(payload) | length << 17 | alone << 34).to_bytes(5, "little")
        else:
            payload, head = piece, (len(piece) | alone << 17).to_bytes(3, "little")
        yield head + crc24(head) + payload + crc32(payload)


def describe(opcode, flags, body):
    """What a plain frame says, for the comment above its bytes."""
    prefix = cql.Reader(body)
    marks = []
    if flags & 0x02 and opcode == cql.RESULT:
        prefix.take(16)
        marks.append("tracing id")
    if flags & 0x08:
        for _ in range(prefix.short()):
            prefix.string()
        marks.append("warnings")
    body = body[prefix.at:]
    reader = cql.Reader(body)
    said = OPCODES.get(opcode, hex(opcode))
    if opcode == cql.ERROR:
        said += f" 0x{reader.int():04x} {reader.string()}"
    elif opcode == cql.EVENT:
        kind, change = reader.string(), reader.string()
        said += f" {kind} {change}"
        if kind != "SCHEMA_CHANGE":
            raw = reader.take(reader.take(1)[0])
            said += f" {cql.decode((0x10, None), raw)}:{reader.int()}"
    elif opcode == cql.RESULT:
        kind = reader.int()
        said += " " + {1: "Void", 2: "Rows", 3: "SetKeyspace", 4: "Prepared", 5: "SchemaChange"}[kind]
        if kind == 2:
            bits = reader.int()
            said += "".join(name for bit, name in ((1, " global"), (2, " more-pages"), (4, " no-metadata"), (8, " new-metadata-id")) if bits & bit)
            if not bits & 4:
                said += f", {len(cql.rows(body))} rows"
    return said + (f" ({', '.join(marks)})" if marks else "")


class Talk:
    """`blocks` collects (direction, comment, bytes): one frame or one segment each, in the order of the wire."""

    def __init__(self, address, version, compression="none", timeout=10):
        self.socket = socket.create_connection((address, 9042), timeout=timeout)
        self.address, self.version, self.compression = address, version, compression
        self.compressed = self.segmented = False
        self.blocks, self.buffer, self.stream = [], b"", 0

    def close(self):
        self.socket.close()

    def startup(self, **more):
        options = {"CQL_VERSION": "3.0.0", "DRIVER_NAME": "golden", "DRIVER_VERSION": "1", **more}
        if self.compression != "none":
            options["COMPRESSION"] = self.compression
        self.send(cql.STARTUP, cql.string_map(options), f"compression {self.compression}")
        answer = self.receive()
        if answer[0] in (cql.READY, cql.AUTHENTICATE):
            self.compressed = self.compression != "none"
            self.segmented = self.version == 5
        return answer

    def send(self, opcode, body, note="", flags=0):
        self.stream = self.stream + 1
        comment = f"{OPCODES[opcode]} v{self.version}" + (f" {note}" if note else "")
        if self.compressed and self.version < 5 and body:
            flags |= 0x01
            body = (struct.pack(">i", len(body)) + lz4.block.compress(body, store_size=False)
                    if self.compression == "lz4" else snappy.compress(body))
        raw = cql.frame(self.version, opcode, body, self.stream, flags)
        for piece in segments(raw, self.compressed) if self.segmented else [raw]:
            self.blocks.append((">", comment, piece))
            self.socket.sendall(piece)

    def ask(self, opcode, body, note="", flags=0):
        """Sends, and receives until the answer to it; events on the way are recorded too."""
        self.send(opcode, body, note, flags)
        while True:
            answer = self.receive()
            if answer[0] != cql.EVENT:
                return answer

    def read(self, count):
        got = bytearray()
        while len(got) < count:
            piece = self.socket.recv(count - len(got))
            if not piece:
                raise EOFError("closed by the node")
            got += piece
        return bytes(got)

    def read_segment(self):
        head = self.read(8 if self.compressed else 6)
        bits = int.from_bytes(head[:5 if self.compressed else 3], "little")
        payload, check = self.read(bits & 0x1FFFF), self.read(4)
        assert crc24(head[:-3]) == head[-3:] and crc32(payload) == check
        plain = payload
        if self.compressed and (length := bits >> 17 & 0x1FFFF):
            plain = lz4.block.decompress(payload, uncompressed_size=length)
        return bool(bits >> (34 if self.compressed else 17) & 1), head + payload + check, plain

    def receive(self):
        """The next frame, plain: (opcode, flags, body)."""
        if not self.segmented:
            head = self.read(9)
            _, flags, _, opcode, length = struct.unpack(">BBhBi", head)
            body = wire = self.read(length)
            if flags & 0x01:
                body = (lz4.block.decompress(wire[4:], uncompressed_size=struct.unpack(">i", wire[:4])[0])
                        if self.compression == "lz4" else snappy.uncompress(wire))
            self.blocks.append(("<", describe(opcode, flags, body), head + wire))
            return opcode, flags, body
        first = len(self.blocks)
        while True:
            if len(self.buffer) >= 9:
                _, flags, _, opcode, length = struct.unpack(">BBhBi", self.buffer[:9])
                if len(self.buffer) >= 9 + length:
                    break
            alone, wire, plain = self.read_segment()
            self.buffer += plain
            self.blocks.append(["<", "" if alone else "part of ", wire])
        body, self.buffer = self.buffer[9:9 + length], self.buffer[9 + length:]
        said = describe(opcode, flags, body)
        # A frame that came whole in an earlier segment is told there.
        for block in self.blocks[first:] or [b for b in self.blocks if b[0] == "<"][-1:]:
            block[1] += ("" if block[1] in ("", "part of ") else ", then ") + said
        return opcode, flags, body

    def wait_for(self, *texts):
        """Receives until, since the last request, something was said that contains each of `texts`."""
        asked = max(i for i, block in enumerate(self.blocks) if block[0] == ">")
        while any(all(text not in said for _, said, _ in self.blocks[asked:]) for text in texts):
            self.receive()

    def until_closed(self):
        """Receives until the node closes or has nothing more to say, and writes down which."""
        self.socket.settimeout(2)
        try:
            while True:
                self.receive()
        except (EOFError, ConnectionError):
            self.blocks.append((".", "closed by the node", b""))
        except TimeoutError:
            self.blocks.append((".", "still open", b""))


def hex_lines(raw):
    """32 bytes a line; a run of 16 or more equal bytes is written `xx*count`."""
    words, at = [], 0
    while at < len(raw):
        run = 1
        while at + run < len(raw) and raw[at + run] == raw[at]:
            run += 1
        if run >= 16:
            words.append(f"{raw[at]:02x}*{run}")
            at += run
        else:
            words.append(f"{raw[at]:02x}")
            at += 1
    return [" ".join(words[i:i + 32]) for i in range(0, len(words), 32)]


def write(path, title, header, talk):
    lines = [f"# {title}", *(f"# {key}: {text}" for key, text in header), ""]
    for direction, comment, raw in talk.blocks:
        lines += [f"{direction} {comment}", *hex_lines(raw), ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
