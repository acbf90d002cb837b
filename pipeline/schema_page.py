"""docs/wire_fields.md: every key of every header, from the types and their docstrings.

`python -m skrd4ad.pipeline.schema_page docs/wire_fields.md`; a test compares page and types.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from ..engine.atomic import write_atomically
from . import wire_messages
from .field_docs import field_docs
from .schema import HEADERS, schema_files
from .topics import KINDS

_HEAD = """# Every key of every message

Made from the program's own types (`python -m skrd4ad.pipeline.schema_page docs/wire_fields.md`),
as are the JSON Schemas in `configs/schema/`. [wire.md](wire.md) explains what they are for. Keys
marked *optional* are left out when there is nothing to say. Times `t...` are nanoseconds since 1970
UTC, `mono...` nanoseconds of the box's monotonic clock. Ignore keys that are not here: a newer box
may send more.
"""


_MEANINGS = {
    "v": "version of the protocol, major.minor",
    "kind": "",
    "box": "name of the box",
    "boot": "drawn anew at each start of the box's program, 16 hexadecimal digits",
    "seq": "number of the event; in `hb`, `map` and `pic` of the event they belong to",
    "cam": "name of the camera",
    "cam_seq": "number of the part at this camera since the start",
    "part": "which physical part",
    "frame": "the captured picture",
    "t": "when it was sent",
    "mono": "when it was sent",
    "t_pub": "when it was sent",
    "mono_cap": "capture",
    "mono_pub": "when it was sent; for *fresh*",
    "verdict": "`err`: not inspected, treat it as a reject",
    "reason": "why, in stable words; empty for a plain `ok`",
    "score": "null: it was not a number",
    "thr": "threshold it was compared with; null: none",
    "evaluated": "false: the network has not judged this part",
    "n_regions": "how many defects there were",
    "lat_us": "where the time went",
    "model": "what decided",
    "drops": "frames that were never judged",
    "counts": "verdicts since the start",
    "sim": "true: the part was rendered, not photographed",
    "map": "whether a map follows",
    "state": "condition of the line; only RUNNING may be acted on",
    "previous": "the state before",
    "text": "a sentence for people",
    "code": "stable number (wire.md, section 8)",
    "name": "",
    "severity": "`error`: somebody must come",
    "active": "false: it is over",
    "since": "when it began",
    "period_ms": "between two heartbeats",
    "health": "what the line reports about itself",
    "t_cap": "capture",
    "blobs": "what follows as further parts of the message",
    "PartFields.id": "as the order or the controller named it; null: unknown",
    "PartFields.trigger_seq": "number of the trigger; null: none",
    "PartFields.source": "who named the part",
    "PartFields.match": "how sure the pairing of part and picture is",
    "FrameFields.id": "the camera's own number of the picture",
    "FrameFields.t_cap_src": "whose clock gave `t_cap`",
    "FrameFields.t_cap_err_ns": "how far `t_cap` may be off",
    "FrameFields.late": "the deadline was missed",
    "bbox": "x, y, width, height in pixels of the captured picture",
    "peak": "x, y of the highest value",
    "area_px": "",
    "RegionFields.id": "place in the station's table of regions, from 1",
    "BlobFields.xform": "sx, 0, tx, 0, sy, ty: x of the picture = sx * x of the map + tx",
    "scale": "value = raw * scale + offset",
    "offset": "",
    "bytes": "length",
    "scale_to_image": "sx, sy: x of the captured picture = sx * x",
}
"""For keys whose type has no sentence of its own; "Type.key" before "key"."""


def page() -> str:
    """The whole page."""
    files = schema_files()
    parts: dict[str, dict[str, Any]] = {}
    text = [_HEAD]
    for kind, header in HEADERS.items():
        schema = json.loads(files[f"skrd1-{kind}.schema.json"])
        definitions = schema["$defs"]
        own = definitions.pop(header.__name__)
        for name, definition in definitions.items():
            parts.setdefault(name, definition)
        text.append(f"## `{kind}`: {_sentence(own).partition(': ')[2]}\n")
        text.append(f"Topic `{KINDS[kind].shape}`.\n")  # type: ignore[index]
        text += _table(header.__name__, own)
    text.append("## Parts of the headers\n")
    for name, definition in sorted(parts.items()):
        text.append(f"### {name}\n\n{_sentence(definition)}\n")
        text += _table(name, definition)
    return "\n".join(text).rstrip() + "\n"


def _table(name: str, definition: dict[str, Any]) -> list[str]:
    kind = getattr(wire_messages, name)
    said = field_docs(kind)
    rows = ["| Key | Type | Meaning |", "|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        key, schema = field.encode_name, definition["properties"][field.encode_name]
        optional = "*optional* " if field.default is msgspec.UNSET else ""
        meaning = said.get(key) or _MEANINGS.get(f"{name}.{key}", _MEANINGS.get(key, ""))
        rows.append(f"| `{key}` | {optional}{_type(schema)} | {meaning} |")
    return [*rows, ""]


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return " ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    kind = schema["type"]
    if kind == "array":
        if "prefixItems" in schema:
            return f"list of {len(schema['prefixItems'])} {_type(schema['prefixItems'][0])}s"
        return f"list of {_type(schema['items'])}"
    if kind == "object":
        return f"object, by name: {_type(schema['additionalProperties'])}"
    return str(kind)


def _sentence(definition: dict[str, Any]) -> str:
    return " ".join(str(definition.get("description", "")).split())


if __name__ == "__main__":
    write_atomically(Path(sys.argv[1]), page().encode())
