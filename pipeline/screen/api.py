"""What the page asks for and sends, as values: a query or body in, something for JSON out.

No HTTP here; the refusals carry the status that web_server.py answers with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from ...built_types import built
from ...errors import ConfigError, NetworkError, SkrdError
from ..control_port import ControlRefused
from ..control_wire import Camera, Text, Threshold, Truth
from ..wire_messages import Boot
from .access import Access, Person
from .boxes import Box
from .changes import Changes
from .live import Part
from .region_desk import Outdated, RegionDesk, StoredRegions
from .threshold_preview import (
    preview_threshold,
    score_histogram,
    used_thresholds,
    would_change,
)
from .trends import score_history, yield_by_minute

MOST_PARTS = 120
MOST_CHANGED = 24
"""Parts shown that another threshold would judge otherwise."""
Query = Mapping[str, str]


class Refusal(Exception):
    """The answer is a status and one sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Site:
    """All that one page is made of; `desk` is None where no folder for regions was named."""

    boxes: tuple[Box, ...]
    access: Access
    changes: Changes
    desk: RegionDesk | None = None

    def box(self, index: int) -> Box:
        if not 0 <= index < len(self.boxes):
            raise Refusal(HTTPStatus.NOT_FOUND, "there is no such box on this page")
        return self.boxes[index]


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a POST carries."""


class FeedbackBody(_Body, frozen=True):
    """`truth` is what the part of that event really was; `who` counts where nobody logs in."""

    box: int
    boot: Boot
    seq: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    truth: Truth
    who: Text = ""


class ThresholdBody(_Body, frozen=True):
    """The score above which the box is to reject, from its next part on.

    `camera` "" means all, `region` "" the image outside of regions with a threshold of their own.
    """

    box: int
    value: Threshold
    camera: Camera = ""
    region: Camera = ""
    who: Text = ""


class RegionsBody(_Body, frozen=True):
    """`digest` is the one that came with the regions that were changed."""

    box: int
    camera: str
    digest: str
    regions: dict[str, Any]


_B = TypeVar("_B", bound=_Body)


def about(site: Site, person: Person) -> dict[str, Any]:
    """What this person may do here; it holds as long as the page is served."""
    return {
        "who": person.name,
        "role": person.role,
        "log_out": site.access.needs_password,
        "regions": site.desk is not None,
        "boxes": [
            {"connect": box.endpoints.events, "control": box.endpoints.control}
            for box in site.boxes
        ],
    }


def snapshot(site: Site, after: Mapping[int, int]) -> dict[str, Any]:
    """All boxes; of each one's history only parts numbered above `after[index]`."""
    return {
        "boxes": [box.view.snapshot(after.get(index, 0)) for index, box in enumerate(site.boxes)]
    }


def gallery(site: Site, query: Query) -> dict[str, Any]:
    """Parts that were not ok, newest first, filtered; `total` is how many there are unfiltered."""
    parts = site.box(_whole(query, "box")).view.gallery()
    since, until = _number(query, "since", 0.0), _number(query, "until", math.inf)
    found = [part for part in parts if _matches(part, query, since, until)]
    if query.get("order") == "score":
        # Without a score means not inspected: nothing is worse.
        found.sort(key=lambda part: math.inf if part["score"] is None else part["score"])
        found.reverse()
    limit = min(_whole(query, "limit", MOST_PARTS), MOST_PARTS)
    return {
        "total": len(parts),
        "found": len(found),
        "parts": found[:limit],
        "cameras": sorted({part["cam"] for part in parts}),
        "kinds": sorted(set().union(*map(_kinds, parts))),
    }


def trends(site: Site, query: Query) -> dict[str, Any]:
    """Yield of the last hour and the scores' history."""
    view = site.box(_whole(query, "box")).view
    parts, _ = view.parts(query.get("camera", ""), None)
    newest, _ = view.parts(query.get("camera", ""), _whole(query, "newest", 20_000))
    return {"minutes": yield_by_minute(parts), "history": score_history(newest)}


def preview(site: Site, query: Query) -> dict[str, Any]:
    """What `threshold` in place of `now` would have made of the last `newest` parts; without it,
    which thresholds judged them, and the scores of those that `now` judged."""
    view, camera = site.box(_whole(query, "box")).view, query.get("camera", "")
    parts, marks = view.parts(camera, _whole(query, "newest", 5000))
    used = used_thresholds(parts)
    if not used:
        return {"thresholds": [], "current": None, "histogram": None, "changed": []}
    now = _number(query, "now", used[0].value)
    known = [part for part in view.known_parts() if camera in ("", part["cam"])]
    if "threshold" not in query:
        names = {np.float32(p["thr"]): p["regions"][0]["name"] for p in known if p["regions"]}
        thresholds = [{**asdict(one), "region": names.get(np.float32(one.value))} for one in used]
        return {
            "thresholds": thresholds,
            "current": now,
            "histogram": score_histogram(parts, marks, now),
        }
    threshold, asked = _number(query, "threshold", 0.0), now if len(used) > 1 else None
    changed = [part for part in known if would_change(part, asked, threshold)]
    return {
        **asdict(preview_threshold(parts, marks, now, threshold)),
        "changed": changed[:MOST_CHANGED],
    }


def regions(site: Site, query: Query) -> dict[str, Any]:
    """The stored regions of a camera."""
    box, desk = site.box(_whole(query, "box")), _desk(site)
    try:
        stored = desk.read(box.view.box, query.get("camera", ""))
    except ConfigError as error:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, sentence_of(error)) from None
    return _stored(stored)


def store_regions(site: Site, body: bytes, person: Person) -> dict[str, Any]:
    """Check and write the regions of a camera."""
    wanted = _decoded(body, RegionsBody)
    _check_engineer(person, "change regions")
    box, desk = site.box(wanted.box), _desk(site)
    picture, map_message = box.view.newest_images(wanted.camera)
    try:
        stored = desk.store(
            box.view.box, wanted.camera, wanted.regions, wanted.digest, picture, map_message
        )
    except Outdated as error:
        raise Refusal(HTTPStatus.CONFLICT, sentence_of(error)) from None
    except ConfigError as error:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, sentence_of(error)) from None
    return _stored(stored)


def feedback(site: Site, body: bytes, person: Person) -> dict[str, Any]:
    """Pass on what an operator found a part to be."""
    said = _decoded(body, FeedbackBody)
    who = person.name or said.who
    with _orders_refused():
        site.box(said.box).feedback((said.boot, said.seq), said.truth, who)
    return {"truth": said.truth, "who": who}


def set_threshold(site: Site, body: bytes, person: Person) -> dict[str, Any]:
    """Pass on the order to judge by another threshold."""
    wanted = _decoded(body, ThresholdBody)
    _check_engineer(person, "change the threshold")
    with _orders_refused():
        revision = site.box(wanted.box).set_threshold(
            wanted.value, wanted.camera, wanted.region, person.name or wanted.who
        )
    return {"value": wanted.value, "revision": revision}


def sentence_of(error: SkrdError) -> str:
    """The sentence and, after a colon, what to do."""
    return f"{error.sentence}: {error.hint}" if error.hint else error.sentence


@contextmanager
def _orders_refused() -> Iterator[None]:
    """The box's answer as ours: 502 when there is none, 409 when it refuses."""
    try:
        yield
    except NetworkError as error:
        raise Refusal(HTTPStatus.BAD_GATEWAY, sentence_of(error)) from None
    except (ControlRefused, ConfigError) as error:
        raise Refusal(HTTPStatus.CONFLICT, sentence_of(error)) from None


def _check_engineer(person: Person, what: str) -> None:
    if person.role != "engineer":
        raise Refusal(
            HTTPStatus.FORBIDDEN,
            f"only an engineer may {what}: skrd4ad serve --role engineer, on a page with passwords "
            "together with --set-password NAME",
        )


def _matches(part: Part, query: Query, since: float, until: float) -> bool:
    verdict, camera, kind = (query.get(key, "") for key in ("verdict", "camera", "kind"))
    return (
        (not verdict or part["verdict"] == verdict)
        and (not camera or part["cam"] == camera)
        and (not kind or kind in _kinds(part))
        and since <= part["t_pub"] / 1e9 <= until
    )


def _kinds(part: Part) -> set[str]:
    """What a part can be looked for by: its defects' regions, the reasons, a rendered defect."""
    regions = {f"region:{region['name']}" for region in part["regions"]}
    reasons = {f"reason:{reason}" for reason in part["reason"]}
    return regions | reasons | ({f"rendered:{part['truth']}"} if "truth" in part else set())


def _stored(stored: StoredRegions) -> dict[str, Any]:
    found = None if stored.regions is None else msgspec.to_builtins(stored.regions)
    return {
        "path": str(stored.path),
        # For the station file's regions_folder: the line finds box and camera below it.
        "folder": str(stored.path.parents[1]),
        "digest": stored.digest,
        "regions": found,
    }


def _desk(site: Site) -> RegionDesk:
    if site.desk is None:
        raise Refusal(
            HTTPStatus.CONFLICT, "this page was started without --regions FOLDER to keep them in"
        )
    return site.desk


def _decoded(body: bytes, kind: type[_B]) -> _B:
    try:
        return msgspec.json.decode(body, type=built(kind))
    except msgspec.DecodeError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"not understood: {error}") from None


def _whole(query: Query, name: str, default: int = 0) -> int:
    return int(_number(query, name, default))


def _number(query: Query, name: str, default: float) -> float:
    try:
        value = float(query.get(name, default))
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"{name} is not a number") from None
    if math.isnan(value) or (math.isinf(value) and name in query) or value < 0:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"{name} is not a positive number")
    return value
