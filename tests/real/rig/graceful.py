"""GRACEFUL_DISCONNECT (CEP-59) offered by the gateway in front of nodes that do not know it, asked for by connections of the rig's; and a
REGISTER of no types, which is answered as nodes answer it. No driver knows either.
"""
import random
import signal

from . import assertions as a
from . import cql, net
from .cql import Reader
from .gateway import FIRST_PORT, Gateway
from .speaker import Closed, Early, Speaker

NAME = "GRACEFUL_DISCONNECT"
PATIENCE = 10


class Graceful(Gateway):
    """Closes those who stay although they were told, soon."""

    def yaml(self, credentials):
        return super().yaml(credentials) + "drain: {spread: 500ms, linger: 500ms, deadline: 6s, graceful_disconnect: true}\n"


def place():
    """The rig is inside."""
    return net.gateway_inside(), FIRST_PORT


def asked(speaker, opcode, body):
    """(opcode, body) of the answer to one request."""
    speaker.send(speaker.wrap([speaker.frame(opcode, body, stream=7)]))
    answer = speaker.answer(PATIENCE)
    if not answer or answer[2] != 7:
        raise a.Failed(f"{opcode:#04x} is answered {answer}")
    return answer[1], answer[3]


def speak(version, where=None):
    return Speaker(where or place(), version, "none", random.Random(1))


def offered(ring):
    """Keys of SUPPORTED that the gateway says and a node does not, in v5; in v4 there are none."""
    said = {}
    for version in (4, 5):
        for who, where in (("node", (ring.nodes[0].address, 9042)), ("gateway", place())):
            speaker = Early(where, version, "none", random.Random(1))
            opcode, body = asked(speaker, cql.OPTIONS, b"")
            speaker.close()
            if opcode != cql.SUPPORTED:
                raise a.Failed(f"the {who} answers OPTIONS with {opcode:#04x}")
            reader = Reader(body)
            said[version, who] = {reader.string(): [reader.string() for _ in range(reader.short())] for _ in range(reader.short())}
    more = {version: {key: values for key, values in said[version, "gateway"].items() if said[version, "node"].get(key) != values} for version in (4, 5)}
    if more != {4: {}, 5: {NAME: ["true"]}}:
        raise a.Failed(f"more than the node's: {more}")
    return f"v5 {more[5]}, v4 nothing"


def nothing(ring):
    """A REGISTER of no types has the node's own answer; so has, in v4, one that names the type that is not offered there."""
    said = []
    for version, types in ((3, []), (4, []), (5, []), (4, [NAME])):
        direct, through = (speak(version, where) for where in ((ring.nodes[0].address, 9042), place()))
        answers = [asked(speaker, cql.REGISTER, cql.string_list(types)) for speaker in (direct, through)]
        # A request after it shows that the connection is as good as before.
        after = [asked(speaker, cql.OPTIONS, b"")[0] for speaker in (direct, through)] if not types else []
        direct.close(), through.close()
        if answers[0] != answers[1] or len(set(after)) > 1:
            raise a.Failed(f"v{version} {types}: the node says {answers[0]} and {after[:1]}, the gateway {answers[1]} and {after[1:]}")
        said.append(f"v{version} {types}: {answers[0][0]:#04x}")
    return ", ".join(said)


def until_the_end(speaker):
    """What came before the end, by name; the end itself is the last."""
    said = []
    while True:
        try:
            answer = speaker.answer(PATIENCE)
        except Closed as closed:
            return said + [str(closed)]
        if not answer:
            raise a.Failed(f"neither told nor closed: {said}")
        said.append(Reader(answer[3]).string() if answer[1] == cql.EVENT else f"{answer[1]:#04x}")


def farewell(gateway):
    """Told, on each connection that asked for it, and only then closed; and who asked for other events alone is closed without a word."""
    wanted = {"alone": [NAME], "with STATUS_CHANGE": ["STATUS_CHANGE", NAME], "leaves": [NAME], "not asked": ["STATUS_CHANGE"]}
    speakers = {who: speak(5) for who in wanted}
    for who, types in wanted.items():
        opcode, body = asked(speakers[who], cql.REGISTER, cql.string_list(types))
        if (opcode, body) != (cql.READY, b""):
            raise a.Failed(f"{who}: REGISTER {types} is answered {opcode:#04x} {body}")
    gateway.process.send_signal(signal.SIGTERM)
    leaver = speakers.pop("leaves")
    told = leaver.answer(PATIENCE)
    if not told or (told[1], told[2], Reader(told[3]).string()) != (cql.EVENT, -1, NAME):
        raise a.Failed(f"the one that leaves was told {told}")
    # It finishes what it has to do, and goes by itself.
    query = cql.long_string("SELECT key FROM system.local") + b"\0\x01\0\0\0\0"
    opcode, _ = asked(leaver, cql.QUERY, query)
    leaver.close()
    if opcode != cql.RESULT:
        raise a.Failed(f"what was asked after the farewell is answered {opcode:#04x}")
    said = {who: until_the_end(speaker) for who, speaker in speakers.items()}
    if said != {"alone": [NAME, "end"], "with STATUS_CHANGE": [NAME, "end"], "not asked": ["end"]}:
        raise a.Failed(said)
    gateway.stop()
    return f"{said}; one left after {NAME} and another answer"


def run(ring, add):
    gateway = Graceful(ring).start()
    for assertion, check in (("offered", lambda: offered(ring)), ("REGISTER", lambda: nothing(ring)), ("farewell", lambda: farewell(gateway))):
        add("CEP-59", assertion, check)
    gateway.stop()
