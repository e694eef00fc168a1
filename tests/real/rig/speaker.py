"""A connection that says what it likes: v3 to v5, LZ4 and Snappy, any flags, versions and streams, several requests in one write.

It keeps no account of its requests: answers are read as they come. `leak.py` makes the requests and judges the answers.
"""
import socket
import struct
import sys
import time
import zlib

from . import cache, cql, drivers

COMPRESSION, TRACING, PAYLOAD, WARNING, BETA = 0x01, 0x02, 0x04, 0x08, 0x10
# The longest payload of a v5 segment.
SEGMENT = 131_071


def libraries():
    """Makes the codecs' modules ones that can be imported: they are where the Python driver is, this interpreter has none."""
    site = cache.python("drivers/python", drivers.PYTHON).parent.parent
    sys.path[:0] = [str(place) for place in site.glob("lib/python*/site-packages") if str(place) not in sys.path]


def compress(name, body):
    if name == "lz4":
        import lz4.block
        return struct.pack(">i", len(body)) + lz4.block.compress(body, store_size=False)
    import snappy
    return snappy.compress(body)


def decompress(name, body):
    if name == "lz4":
        import lz4.block
        size = struct.unpack(">i", body[:4])[0]
        return lz4.block.decompress(body[4:], uncompressed_size=size) if size else b""
    import snappy
    return snappy.decompress(body)


def crc24(raw):
    crc = 0x875060
    for byte in raw:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1974F0B
    return struct.pack("<I", crc & 0xFFFFFF)[:3]


def crc32(raw):
    return struct.pack("<I", zlib.crc32(raw, zlib.crc32(b"\xfa\x2d\x55\xca")))


def segment(payload, packed, chance, whole=True):
    """One v5 segment, native_protocol_v5.spec section 2.2; `packed` has the longer header, its payload stays as it is or not, by chance."""
    if not packed:
        head = struct.pack("<I", len(payload) | (whole << 17))[:3]
        return head + crc24(head) + payload + crc32(payload)
    body, full = payload, 0
    if payload and chance.random() < 0.7:
        import lz4.block
        shorter = lz4.block.compress(payload, store_size=False)
        if len(shorter) < len(payload):
            body, full = shorter, len(payload)
    head = struct.pack("<Q", len(body) | (full << 17) | (whole << 34))[:5]
    return head + crc24(head) + body + crc32(body)


class Closed(Exception):
    """The other side ended the connection, or does not let us in."""


class Speaker:
    def __init__(self, address, version, compression, chance, timeout=5.0):
        self.version, self.compression, self.chance = version, compression, chance
        self.dial(address, timeout)
        options = {"CQL_VERSION": "3.0.0", **({"COMPRESSION": compression} if compression != "none" else {})}
        self.socket.sendall(cql.frame(version, cql.STARTUP, cql.string_map(options)))
        answer = self.answer(timeout)
        if not answer or answer[1] != cql.READY:
            self.close()
            raise Closed(f"no READY: {answer and answer[:2]}")
        self.segmented = version >= 5

    def dial(self, address, timeout):
        self.socket = socket.create_connection(address, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.raw, self.frames, self.segmented = bytearray(), bytearray(), False

    def close(self):
        self.socket.close()

    def frame(self, opcode, body, stream=0, flags=0, version=None):
        """A frame as this connection has agreed to write it; what `flags` has beyond that is the caller's."""
        if not self.segmented and self.compression != "none" and self.chance.random() < 0.7:
            body, flags = compress(self.compression, body), flags | COMPRESSION
        return cql.frame(self.version if version is None else version, opcode, body, stream, flags)

    def wrap(self, frames):
        """Bytes for the wire: the frames one after the other, in v5 in segments that hold several, one, or a part."""
        if not self.segmented:
            return b"".join(frames)
        packed, out, chance = self.compression == "lz4", [], self.chance
        if chance.random() < 0.5 and sum(map(len, frames)) <= SEGMENT:
            return segment(b"".join(frames), packed, chance)
        for frame in frames:
            if len(frame) <= SEGMENT and chance.random() < 0.8:
                out.append(segment(frame, packed, chance))
            else:
                step = min(SEGMENT, chance.randint(max(1, len(frame) // 4), len(frame)))
                out += [segment(frame[at:at + step], packed, chance, whole=False) for at in range(0, len(frame), step)]
        return b"".join(out)

    def send(self, raw):
        try:
            self.socket.sendall(raw)
        except OSError as error:
            raise Closed(str(error)) from None

    def answer(self, seconds):
        """(flags, opcode, stream, body) of the next answer, its body decompressed; None when there is none in time."""
        end = time.monotonic() + seconds
        while True:
            if self.segmented:
                self.unpack()
            source = self.frames if self.segmented else self.raw
            if len(source) >= 9:
                _, flags, stream, opcode, length = struct.unpack(">BBhBi", source[:9])
                if len(source) >= 9 + length:
                    body = bytes(source[9:9 + length])
                    del source[:9 + length]
                    if flags & COMPRESSION and not self.segmented and self.compression != "none":
                        body = decompress(self.compression, body)
                    return flags, opcode, stream, body
            left = end - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                piece = self.socket.recv(65536)
            except TimeoutError:
                return None
            except OSError as error:
                raise Closed(str(error)) from None
            if not piece:
                raise Closed("end")
            self.raw += piece

    def unpack(self):
        """Takes the segments that are whole out of `raw`; the checksums are TCP's and the gateway's tests' business."""
        packed = self.compression == "lz4"
        size = 8 if packed else 6
        while len(self.raw) >= size:
            head = int.from_bytes(self.raw[:size - 3], "little")
            length, full = head & 0x1FFFF, (head >> 17) & 0x1FFFF if packed else 0
            if len(self.raw) < size + length + 4:
                return
            payload = bytes(self.raw[size:size + length])
            del self.raw[:size + length + 4]
            if full:
                import lz4.block
                payload = lz4.block.decompress(payload, uncompressed_size=full)
            self.frames += payload


class Early(Speaker):
    """One that has said nothing yet. From the first READY on answers are read as the version has them."""

    def __init__(self, address, version, compression, chance, timeout=5.0):
        self.version, self.compression, self.chance = version, compression, chance
        self.dial(address, timeout)

    def answer(self, seconds):
        answer = super().answer(seconds)
        if answer and answer[1] == cql.READY:
            self.segmented = self.version >= 5
        return answer
