"""Whether an answer tells a client an endpoint of a node. What may show is a short list: the internode identity under its own names.

Rows are taken apart here as a client does it, and what is searched for is a node's address in any form, in every cell.
"""
import ipaddress
import json
import struct

from . import cql

TABLES = ("local", "peers", "peers_v2")
# Who a node is among nodes, not where a client reaches it.
IDENTITY = ("peer", "listen_address", "broadcast_address")


class Judge:
    def __init__(self, addresses):
        self.addresses = [str(address) for address in addresses]
        self.raw = {ipaddress.ip_address(address).packed for address in self.addresses}
        self.raw |= {b"\0" * 10 + b"\xff\xff" + raw for raw in self.raw}

    def __call__(self, flags, opcode, body):
        """What this answer tells that it must not, in words; None when that is nothing."""
        try:
            reader = cql.Reader(body)
            if flags & 0x02 and opcode != cql.EVENT:
                reader.take(16)
            if flags & 0x08:
                [reader.string() for _ in range(reader.short())]
            if flags & 0x04:
                for _ in range(reader.short()):
                    reader.string(), reader.value()
            if opcode == cql.EVENT:
                return self.event(reader)
            if opcode == cql.RESULT and reader.int() == 2:
                return self.rows(reader)
        except (EOFError, UnicodeDecodeError, struct.error) as error:
            # No client could read it; one that guesses would find the cell all the same.
            found = [raw for raw in self.raw if struct.pack(">i", len(raw)) + raw in body]
            return f"unreadable ({error}), with the cell {found[0].hex()}" if found else None
        return None

    def event(self, reader):
        kind = reader.string()
        if kind not in ("TOPOLOGY_CHANGE", "STATUS_CHANGE"):
            return None
        change, raw, port = reader.string(), reader.take(reader.take(1)[0]), reader.int()
        return f"{kind} {change} {ipaddress.ip_address(raw)}:{port}" if raw in self.raw else None

    def rows(self, reader):
        flags, count = reader.int(), reader.int()
        if flags & 0x02:
            reader.value()
        if flags & 0x08:
            reader.take(reader.short())
        if flags & 0x04:
            return self.cells(reader, [(None, None, None)] * count)
        table = (reader.string(), reader.string()) if flags & 0x01 else None
        columns = []
        for _ in range(count):
            place = table or (reader.string(), reader.string())
            columns.append((place, reader.string(), reader.option()))
        # Virtual tables, traces and users' own tables may say what they like.
        if any(place[0] != "system" or place[1] not in TABLES for place, _, _ in columns):
            return None
        return self.cells(reader, columns)

    def cells(self, reader, columns):
        for _ in range(reader.int()):
            for place, name, kind in columns:
                cell = reader.value()
                if not cell or (name in IDENTITY and kind == (0x10, None)):
                    continue
                found = self.in_cell(cell, named=name is not None)
                if found:
                    return f"{'.'.join(place) if place else 'nameless'} {name or ''}: {found}"
        return None

    def in_cell(self, cell, named):
        if cell in self.raw:
            return str(ipaddress.ip_address(cell))
        text = cell.decode("utf-8", "replace")
        if text.startswith("{") and '"' in text:
            try:
                said = json.loads(text)
                text = json.dumps({key: value for key, value in said.items() if key not in IDENTITY})
            except (ValueError, AttributeError):
                pass
        if any(address in text for address in self.addresses):
            return text[:120]
        # Collections and tuples: an element with its length before it.
        if named and any(struct.pack(">i", len(raw)) + raw in cell for raw in self.raw):
            return cell.hex()[:120]
        return None
