"""Control without sockets: what may be asked, who may ask it, and the answer.

Request: one part, JSON, at most 64 KB. Answer: one part, JSON. A request carries an id chosen by
the client; repeated with the same id it is answered again and not carried out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from ..built_types import built
from .key_files import Role
from .wire_messages import PROTOCOL, PROTOCOL_MAJOR, Boot, Count, Name
from .wire_record import DecodeError

MAX_REQUEST_BYTES = 64 * 1024
CUT_OFF_BYTES = 4 * MAX_REQUEST_BYTES
"""Up to here a message that is too long is refused and noted; beyond, libzmq cuts the connection
before anything is kept, and tells nobody."""
Text = Annotated[str, Meta(max_length=200)]
RequestId = Annotated[str, Meta(min_length=8, max_length=64)]
PartId = Annotated[str, Meta(min_length=1, max_length=128)]
Camera = Annotated[str, Meta(max_length=64)]
Threshold = Annotated[float, Meta(gt=-1e9, lt=1e9)]
Truth = Literal["ok", "ng"]


class _Request(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="op", forbid_unknown_fields=True
):
    """`v` and `id` are in every request; unknown keys are refused, so that none is ignored."""

    roles: ClassVar[frozenset[Role]] = frozenset({"engineer"})
    id: RequestId
    v: str = PROTOCOL


class Trigger(_Request, frozen=True, kw_only=True, tag="trigger"):
    """Take a picture of this part now."""

    roles: ClassVar[frozenset[Role]] = frozenset({"gate", "engineer"})
    cam: Camera = ""
    part: PartId | None = None


class Feedback(_Request, frozen=True, kw_only=True, tag="feedback"):
    """What a person found the part of event `seq` to be; kept in the journal."""

    roles: ClassVar[frozenset[Role]] = frozenset({"viewer", "engineer"})
    seq: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    truth: Truth
    who: Text = ""
    note: Text = ""


class SetThreshold(_Request, frozen=True, kw_only=True, tag="threshold"):
    """Judge by `value` from the next part on. Not written to the plan."""

    cam: Camera = ""
    region: Camera = ""
    value: Threshold
    who: Text = ""


class Reload(_Request, frozen=True, kw_only=True, tag="reload"):
    """Change to the plan in this file of the box, between two parts."""

    cam: Camera = ""
    plan: Annotated[str, Meta(min_length=1, max_length=1000)]


class Rollback(_Request, frozen=True, kw_only=True, tag="rollback"):
    """Back to the plan before the last change."""

    cam: Camera = ""


class Resync(_Request, frozen=True, kw_only=True, tag="resync"):
    """Pair triggers and frames anew after alarm 1004."""

    roles: ClassVar[frozenset[Role]] = frozenset({"gate", "engineer"})
    cam: Camera = ""


class Drain(_Request, frozen=True, kw_only=True, tag="drain"):
    """Finish what was captured, say BYE and end."""


class Audit(_Request, frozen=True, kw_only=True, tag="audit"):
    """The newest entries of the audit list."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50


Request = Trigger | Feedback | SetThreshold | Reload | Rollback | Resync | Drain | Audit


class AuditEntry(msgspec.Struct, frozen=True):
    """One line of the audit list."""

    t: Count
    who: str
    role: str
    op: str
    arguments: str
    outcome: str


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`ok` or the reason why not. Beside it only what the request asked for."""

    v: str = PROTOCOL
    id: str = ""
    op: str = ""
    box: Name = "box"
    boot: Boot = "0" * 16
    ok: bool
    error: str = ""
    trigger_seq: int | None = None
    revision: int | None = None
    plan: str | None = None
    audit: tuple[AuditEntry, ...] = ()


def encode_request(request: Request) -> bytes:
    return msgspec.json.encode(request)


_decode_request = msgspec.json.Decoder(built(Request)).decode
_decode_answer = msgspec.json.Decoder(built(Answer)).decode


def decode_request(parts: Sequence[bytes]) -> Request:
    """Raises DecodeError for anything that is not a request of this protocol."""
    if len(parts) != 1 or len(parts[0]) > MAX_REQUEST_BYTES:
        raise DecodeError("a control request is one part of at most 64 KB")
    request: Request = _checked(_decode_request, parts[0], "a control request")
    return request


def encode_answer(answer: Answer) -> bytes:
    return msgspec.json.encode(answer)


def decode_answer(parts: Sequence[bytes]) -> Answer:
    """Raises DecodeError for anything that is not an answer of this protocol."""
    if len(parts) != 1:
        raise DecodeError(f"a control answer is one part, not {len(parts)}")
    answer: Answer = _checked(_decode_answer, parts[0], "a control answer")
    return answer


def may(role: str, request: Request) -> bool:
    """Whether a client of this role may ask for it."""
    return role in request.roles


def arguments_of(request: Request) -> str:
    """What was asked, for the audit list: everything but version, id and op."""
    plain = msgspec.to_builtins(request)
    kept = {key: value for key, value in plain.items() if key not in ("v", "id", "op")}
    return msgspec.json.encode(kept).decode()


def op_of(request: Request) -> str:
    return str(request.__struct_config__.tag)


def control_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas of request and answer."""
    return {"request": msgspec.json.schema(Request), "answer": msgspec.json.schema(Answer)}


def _checked(decode: Any, raw: bytes, what: str) -> Any:
    try:
        found = decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not {what}: {error}") from None
    if found.v.partition(".")[0] != PROTOCOL_MAJOR:
        raise DecodeError(f"protocol {found.v[:20]}; this program speaks {PROTOCOL}")
    return found
