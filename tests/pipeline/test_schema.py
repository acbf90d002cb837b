"""The JSON Schemas that are shipped say what the types say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from skrd4ad.pipeline.schema import main, schema_files
from skrd4ad.pipeline.schema_page import page

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = REPOSITORY / "configs" / "schema"
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(schema_files()))
def test_the_shipped_schema_is_current(name: str) -> None:
    # When this fails: python -m skrd4ad.pipeline.schema configs/schema, and review the change.
    assert (SHIPPED / name).read_bytes() == schema_files()[name]


def test_the_page_of_all_keys_is_current() -> None:
    # When this fails: python -m skrd4ad.pipeline.schema_page docs/wire_fields.md
    assert (REPOSITORY / "docs" / "wire_fields.md").read_text(encoding="utf-8") == page()


def test_the_page_has_every_key_of_every_golden_header() -> None:
    text = page()
    for folder in GOLDEN.iterdir():
        header = json.loads((folder / "1_header.json").read_bytes())
        section = text.partition(f"## `{header['kind']}`")[2].partition("\n## ")[0]
        assert [key for key in header if f"| `{key}` |" not in section] == []


def test_writing_the_schemas_gives_all_files(tmp_path: Path) -> None:
    main(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == schema_files()


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_every_key_of_a_golden_header_is_described_and_every_required_one_is_there(
    name: str,
) -> None:
    header = json.loads((GOLDEN / name / "1_header.json").read_bytes())
    schema = json.loads((SHIPPED / f"skrd1-{header['kind']}.schema.json").read_bytes())
    check(header, schema["$defs"][schema["$ref"].rpartition("/")[2]], schema["$defs"])


def check(
    value: object, schema: dict[str, object], definitions: dict[str, dict[str, object]]
) -> None:
    """Follow objects and references; leaves were checked by the decoder of the codec tests."""
    if "$ref" in schema:
        schema = definitions[str(schema["$ref"]).rpartition("/")[2]]
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, dict):
        return
    assert set(value) <= set(properties)
    assert set(schema.get("required", ())) <= set(value)
    for key, inner in value.items():
        check(inner, properties[key], definitions)
