"""JSON Schemas of headers and station file: `python -m skrd4ad.pipeline.schema configs/schema`.

A test compares the files with the types, so neither can change alone.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from ..engine.atomic import write_atomically
from . import wire_messages as fields
from .control_wire import control_schemas
from .station import station_schema

HEADERS: dict[str, type[fields.Header]] = {
    "res": fields.ResultHeader,
    "st": fields.StateHeader,
    "al": fields.AlarmHeader,
    "hb": fields.HeartbeatHeader,
    "map": fields.MapHeader,
    "pic": fields.PictureHeader,
}


def schema_files() -> dict[str, bytes]:
    """File name -> content, one schema (draft 2020-12) per kind of message, and the station."""
    files = {f"skrd1-{kind}.schema.json": _schema(kind, header) for kind, header in HEADERS.items()}
    for name, schema in control_schemas().items():
        files[f"skrd1-control-{name}.schema.json"] = _text(_undented(schema))
    files["station.schema.json"] = _text(_undented(station_schema()))
    return files


def _schema(kind: str, header: type[fields.Header]) -> bytes:
    (reference,), components = msgspec.json.schema_components(
        [header], ref_template="#/$defs/{name}"
    )
    for component in components.values():
        if "kind" in component["properties"]:
            # It has a default for our own encoder; a message without it is refused.
            component["required"] = sorted({*component["required"], "kind"})
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"SKRD/{fields.PROTOCOL} header of {kind}",
        **reference,
        "$defs": components,
    }
    return _text(_undented(schema))


def _text(schema: dict[str, Any]) -> bytes:
    return json.dumps(schema, indent=2, sort_keys=True).encode() + b"\n"


def _undented(value: Any) -> Any:
    """Descriptions as Python 3.13 gives them: it removes a docstring's indentation itself."""
    if isinstance(value, dict):
        return {
            key: inspect.cleandoc(inner)
            if key == "description" and isinstance(inner, str)
            else _undented(inner)
            for key, inner in value.items()
        }
    return [_undented(inner) for inner in value] if isinstance(value, list) else value


def main(folder: Path) -> None:
    """Write all schema files into `folder`."""
    for name, content in schema_files().items():
        write_atomically(folder / name, content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
