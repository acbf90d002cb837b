"""Replay without sockets: requests, replies, and the client's bookkeeping of gaps.

Request: one part, JSON. Reply: two parts, JSON and the page: for each event the lengths of topic,
header and record as three little-endian u16, then the three. (As ZeroMQ parts of their own the
events would take three times as long.) A reply is one message: it arrives whole or not at all.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from ..built_types import built
from .stream_check import MAX_GAPS, Gap
from .wire import Message, decode
from .wire_messages import PROTOCOL, PROTOCOL_MAJOR, Boot, Count, CountFields, Fields, Name, State
from .wire_record import DecodeError

PAGE_EVENTS = 500
MAX_REQUEST_BYTES = 64 * 1024
CUT_OFF_BYTES = 4 * MAX_REQUEST_BYTES
"""As in control_wire.py: longer messages cost their sender the connection."""
_LENGTHS = struct.Struct("<HHH")
RETRY_NS = 2_000_000_000
_NOT_YET_NS = 200_000_000
"""The wait before asking again for events that the journal is about to store."""


class Request(Fields, frozen=True, kw_only=True):
    """`snapshot`: how things are. `get`: events `from` to `to`, or those of one part."""

    v: str = PROTOCOL
    id: Count
    op: Literal["snapshot", "get", "part"]
    first: Count = msgspec.field(default=0, name="from")
    last: Count = msgspec.field(default=0, name="to")
    part: Annotated[str, Meta(max_length=128)] = ""


class Reply(Fields, frozen=True, kw_only=True):
    """`n` events follow. `seq` is the last number given out, `newest` the last one stored."""

    v: str = PROTOCOL
    id: Count
    op: str
    box: Name
    boot: Boot
    seq: Count
    state: State
    counts: CountFields
    oldest: Count = 0
    newest: Count = 0
    n: Count = 0
    more: bool = False
    """The range holds more events than the page."""
    error: str = ""


F = TypeVar("F", Request, Reply)


def encode_request(request: Request) -> bytes:
    return msgspec.json.encode(request)


def decode_request(parts: Sequence[bytes]) -> Request:
    """Raises DecodeError for anything that is not a request."""
    if len(parts) != 1 or len(parts[0]) > MAX_REQUEST_BYTES:
        raise DecodeError("a request is one part of at most 64 KB")
    request = _parse(parts[0], Request)
    if request.op == "get" and request.first > request.last:
        raise DecodeError(f"the range {request.first} to {request.last} is empty")
    return request


def encode_reply(reply: Reply, events: Sequence[Sequence[bytes]]) -> list[bytes]:
    page = b"".join(
        piece
        for topic, header, record in events
        for piece in (_LENGTHS.pack(len(topic), len(header), len(record)), topic, header, record)
    )
    return [msgspec.json.encode(reply), page]


def decode_reply(parts: Sequence[bytes]) -> tuple[Reply, list[Message]]:
    """Raises DecodeError for anything that is not a whole and consistent reply."""
    if len(parts) != 2:
        raise DecodeError(f"a reply has 2 parts, not {len(parts)}")
    reply, page, at = _parse(parts[0], Reply), parts[1], 0
    messages = []
    while at < len(page):
        if len(page) - at < _LENGTHS.size:
            raise DecodeError("the page ends within the lengths of an event")
        topic, header, record = _LENGTHS.unpack_from(page, at)
        start = at + _LENGTHS.size
        at = start + topic + header + record
        if at > len(page):
            raise DecodeError("the page ends within an event")
        event = (
            page[start : start + topic],
            page[start + topic : at - record],
            page[at - record : at],
        )
        messages.append(decode(event))
    if len(messages) != reply.n:
        raise DecodeError(f"{reply.n} events were promised, {len(messages)} came")
    return reply, messages


@dataclass(frozen=True, slots=True)
class Filled:
    """What one reply did for the gaps."""

    messages: tuple[Message, ...]
    """Events that were missing, in order."""
    gone: tuple[Gap, ...]
    """Ranges that the box does not have (any more)."""


class GapFiller:
    """Which events to ask for next. One request is in flight; lost ones are repeated after 2 s."""

    def __init__(self) -> None:
        self._gaps: deque[Gap] = deque(maxlen=MAX_GAPS)
        self._asked: tuple[int, Gap] | None = None
        self._next_ns = 0
        self._id = 0

    @property
    def busy(self) -> bool:
        """Whether anything is still to be fetched."""
        return bool(self._gaps)

    def add(self, gap: Gap) -> None:
        """Another range is missing."""
        self._gaps.append(gap)

    def request(self, now_ns: int) -> Request | None:
        """What to send now, if anything."""
        if not self._gaps or now_ns < self._next_ns:
            return None
        self._id += 1
        gap = self._gaps[0]
        self._asked = (self._id, gap)
        self._next_ns = now_ns + RETRY_NS
        last = min(gap.last, gap.first + PAGE_EVENTS - 1)
        return Request(id=self._id, op="get", first=gap.first, last=last)

    def receive(self, reply: Reply, messages: Sequence[Message], now_ns: int) -> Filled:
        """Take a reply; one that answers an older request changes nothing."""
        if self._asked is None or reply.id != self._asked[0]:
            return Filled((), ())
        gap, self._asked = self._asked[1], None
        if reply.error:
            return Filled((), ())  # asked again after RETRY_NS
        self._gaps.popleft()
        wanted_to = min(gap.last, gap.first + PAGE_EVENTS - 1)
        found = tuple(m for m in messages if gap.first <= m.header.seq <= wanted_to)
        numbers = [message.header.seq for message in found]
        # What lies beyond `newest` is not stored yet; what lies before and did not come is gone.
        settled_to = min(wanted_to, max(reply.newest, *numbers, gap.first - 1))
        if reply.more and numbers:
            settled_to = numbers[-1]
        if settled_to < gap.last:
            self._gaps.appendleft(Gap(gap.box, gap.boot, settled_to + 1, gap.last))
        self._next_ns = now_ns if settled_to >= gap.first else now_ns + _NOT_YET_NS
        return Filled(found, tuple(_holes(gap, settled_to, numbers)))


def _holes(gap: Gap, settled_to: int, numbers: Sequence[int]) -> list[Gap]:
    holes, expected = [], gap.first
    for number in [*numbers, settled_to + 1]:
        if number > expected:
            holes.append(Gap(gap.box, gap.boot, expected, number - 1))
        expected = number + 1
    return holes


def _parse(raw: bytes, kind: type[F]) -> F:
    try:
        found = msgspec.json.decode(raw, type=built(kind))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not a {kind.__name__.lower()}: {error}") from None
    if found.v.partition(".")[0] != PROTOCOL_MAJOR:
        raise DecodeError(f"protocol {found.v[:20]}; this program speaks {PROTOCOL}")
    return found
