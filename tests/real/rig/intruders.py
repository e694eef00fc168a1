"""What comes before READY and what is written behind a STARTUP that is not answered yet: junk of every version, STARTUPs by the dozen, requests in one
write with them. Whatever the node makes of it, what the gateway then takes for an answer must be one.
"""
from . import cql
from . import mutations as m
from .speaker import Early

# To these nodes say ERROR and read on: 5.0 to versions that nobody knows, 4.1 to a login that nobody asked for.
READ_ON = ((66, cql.OPTIONS), (7, cql.OPTIONS), (4, cql.AUTH_RESPONSE))
JUNK = (6, cql.OPTIONS), (65, cql.OPTIONS), (5, cql.OPTIONS), (4, cql.REGISTER), (4, cql.QUERY), (3, cql.AUTH_RESPONSE), (6, cql.STARTUP), (4, 0x42), \
    (2, cql.OPTIONS), (1, cql.STARTUP)


def startup(version, compression="none", stream=1):
    options = {"CQL_VERSION": "3.0.0", **({"COMPRESSION": compression} if compression != "none" else {})}
    return cql.frame(version, cql.STARTUP, cql.string_map(options), stream)


def nothing(version, opcode):
    return cql.frame(version, opcode, cql.value(None) if opcode == cql.AUTH_RESPONSE else b"", 9)


def by_hand(hunt, chance, address, version, system, ordinary):
    """What was found by hand: an answer that is owed to a request behind STARTUP is taken for that to a later one on the same stream: raw rows for
    those of a statement that has no such rows, or rows that no such statement has, for those of one that has."""
    executes = [cql.frame(version, cql.EXECUTE, m.execute(version, prepared), 3) for prepared in (system, ordinary)]
    question = cql.frame(version, cql.QUERY, m.query(version, "SELECT * FROM k3.t WHERE k = 1"), 3)
    for count in (40, 80, 40):
        for junk in READ_ON:
            for first, later in (executes, (question, executes[0])):
                made = Early(address, version, "none", chance)
                said = [nothing(*junk)] * count + [startup(version), first] + [startup(version, stream=2)] * count + [later]
                intrude(hunt, "behind an unanswered STARTUP", made, [b"".join(said)], [first, later])


def intrude(hunt, who, made, writes, said):
    """Writes it and judges all that comes."""
    hunt.seen["intrusions"] += 1
    try:
        for raw in writes:
            made.send(raw)
        while answer := made.answer(0.3):
            hunt.take(who, made, answer, said)
    finally:
        made.close()


class Intruder:
    def __init__(self, hunt, chance, mutator):
        self.hunt, self.chance, self.mutator = hunt, chance, mutator

    def junk(self):
        chance = self.chance
        if chance.random() < 0.5:
            return nothing(*chance.choice(READ_ON))
        version, opcode = chance.choice(JUNK)
        if version < 3:
            return bytes((version, 0, 1, opcode, 0, 0, 0, 0))
        body = cql.value(b"\0a\0b") if opcode == cql.AUTH_RESPONSE else bytes(2) if opcode in (cql.REGISTER, cql.STARTUP) else b""
        if opcode == cql.QUERY:
            body = m.query(version, self.mutator.text())
        return cql.frame(version, opcode, body, chance.choice((1, 9)))

    def once(self, who, address, version, compression):
        made = Early(address, version, compression, self.chance)
        said, requests = (self.near if self.chance.random() < 0.6 else self.far)(made)
        self.hunt.seen["requests"] += len(requests)
        raw = b"".join(said)
        cut = self.chance.randrange(len(raw)) if self.chance.random() < 0.3 else 0
        intrude(self.hunt, who, made, [raw[:cut], raw[cut:]], requests)

    def near(self, made):
        """Junk that is answered and read past, a request behind STARTUP, another on its stream behind as many STARTUPs."""
        chance, version, count = self.chance, made.version, self.chance.choice((20, 40, 60, 80))
        requests = [cql.frame(version, *self.mutator.valid(version), 3) for _ in range(2)]
        made.segmented = version >= 5
        first, later = (made.wrap([request]) for request in requests)
        made.segmented = False
        opening, again = startup(version, made.compression), startup(version, made.compression, 2)
        return [nothing(*chance.choice(READ_ON))] * count + [opening, first] + [again] * count + [later], requests

    def far(self, made):
        chance, version, requests = self.chance, made.version, []
        count = chance.choice((0, 1, 3, 10, 40, 100))
        said = [self.junk()] * count if chance.random() < 0.7 else [self.junk() for _ in range(count)]
        said.append(startup(version, made.compression))
        for _ in range(chance.randint(1, 3)):
            # As what follows READY is written, or as what comes before it.
            made.segmented = version >= 5 and chance.random() < 0.7
            frames = [self.hunt.mutated(self.mutator, made) for _ in range(chance.randint(1, 3))]
            requests += frames
            said.append(made.wrap(frames))
            said += [startup(version, made.compression, 2)] * chance.choice((0, 0, 1, count))
        made.segmented = False
        return said, requests
