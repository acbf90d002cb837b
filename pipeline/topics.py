"""Topics: the first part of every message, and the one thing a subscriber can filter on.

`<kind>/<box>[/<camera>[/<verdict>]]`, for example `res/edge07/cam0/ng`. ZeroMQ compares the first
bytes only, so a subscription must end in "/" or `cam1` also receives `cam10`.
"""

from __future__ import annotations

import functools
import re
from typing import Literal, NamedTuple

Kind = Literal["res", "st", "al", "hb", "map", "pic"]
VERDICTS = ("ok", "ng", "review", "err")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
"""What a box or camera may be called: 1 to 63 letters, digits, "_", "." and "-"."""


class KindInfo(NamedTuple):
    """One row of the table in docs/wire.md."""

    socket: Literal["events", "maps"]
    takes_seq: bool
    """True when the message itself uses up a number of `seq`; the others only mention one."""
    shape: str
    sent: str


KINDS: dict[Kind, KindInfo] = {
    "res": KindInfo("events", True, "res/<box>/<camera>/<verdict>", "once per part"),
    "st": KindInfo("events", True, "st/<box>", "when the state of the line changes"),
    "al": KindInfo("events", True, "al/<box>[/<camera>]", "when an alarm starts or ends"),
    "hb": KindInfo("events", False, "hb/<box>", "every 500 ms, whatever happens"),
    "map": KindInfo("maps", False, "map/<box>/<camera>", "after its result, by the map policy"),
    "pic": KindInfo("maps", False, "pic/<box>/<camera>", "a small JPEG, by the picture policy"),
}


class Topic(NamedTuple):
    """A topic taken apart; `camera` and `verdict` are "" where the kind has none."""

    kind: Kind
    box: str
    camera: str = ""
    verdict: str = ""

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return "/".join(part for part in self if part).encode("ascii")


def is_name(text: str) -> bool:
    """Whether `text` may be the name of a box or a camera."""
    return NAME.fullmatch(text) is not None


@functools.lru_cache(maxsize=256)
def parse_topic(raw: bytes) -> Topic | None:
    """A topic taken apart, or None when it is not one of ours."""
    try:
        parts = raw.decode("ascii").split("/")
    except UnicodeDecodeError:
        return None
    kind, names = parts[0], parts[1:]
    if kind not in KINDS or not names:
        return None
    cameras_wanted = {"res": (2,), "map": (1,), "pic": (1,), "al": (0, 1), "st": (0,), "hb": (0,)}[
        kind
    ]
    if len(names) - 1 not in cameras_wanted:
        return None
    if kind == "res" and names.pop() not in VERDICTS:
        return None
    if not all(is_name(name) for name in names):
        return None
    return Topic(
        kind, names[0], names[1] if len(names) > 1 else "", parts[3] if kind == "res" else ""
    )
