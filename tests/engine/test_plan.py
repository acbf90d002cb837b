"""The plan file: round trip, and a refusal in one sentence for everything that is not one."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from skrd4ad.engine.plan import load_plan, parse_plan, plan_bytes, replace_threshold, write_plan
from skrd4ad.engine.spec import Threshold
from skrd4ad.errors import PlanError

RELAXED = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def small(tiny: ModuleType) -> bytes:
    """A plan with small members, so that thousands of damaged copies are cheap."""
    return plan_bytes(tiny.tiny_manifest(), {"model.onnx": b"m" * 300, "check.npz": b"c" * 200})


def reseal(data: bytes) -> bytes:
    """Give changed content a correct seal: what a careful forger would do."""
    sealed = data[:-64]
    return sealed + hashlib.sha256(sealed).hexdigest().encode()


def test_round_trip(tiny: ModuleType, tmp_path: Path) -> None:
    members = {"model.onnx": b"model", "check.npz": b"", "kernels.cubin": bytes(range(256))}
    written = write_plan(tmp_path / "a.plan", tiny.tiny_manifest(), members)
    plan = load_plan(tmp_path / "a.plan")
    assert plan.manifest == written.manifest
    assert plan.digest == written.digest
    assert plan.members() == tuple(members)
    assert {name: bytes(plan.read(name)) for name in members} == members
    assert plan.manifest.members["kernels.cubin"].size == 256
    assert msgspec.structs.replace(plan.manifest, members={}) == tiny.tiny_manifest()


def test_equal_content_gives_equal_bytes_and_ordinary_tools_open_it(
    tiny: ModuleType, small: bytes
) -> None:
    again = plan_bytes(tiny.tiny_manifest(), {"model.onnx": b"m" * 300, "check.npz": b"c" * 200})
    assert again == small
    with zipfile.ZipFile(io.BytesIO(small)) as archive:
        assert archive.testzip() is None
        assert archive.read("model.onnx") == b"m" * 300
        assert b'"schema": "skrd4ad-plan/1"' in archive.read("manifest.json")
        assert archive.comment.decode() == f"skrd4ad-plan sha256:{parse_seal(small)}"


def parse_seal(data: bytes) -> str:
    return parse_plan(data, Path("x")).digest.removeprefix("sha256:")


@given(data=st.data())
@RELAXED
def test_every_flipped_bit_is_refused(small: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(small) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = bytearray(small)
    damaged[position] ^= 1 << bit
    with pytest.raises(PlanError, match=r"part\.plan"):
        parse_plan(bytes(damaged), Path("part.plan"))


def test_every_byte_changed_in_turn_is_refused(small: bytes) -> None:
    damaged = bytearray(small)
    for position in range(len(small)):
        damaged[position] ^= 0x20
        with pytest.raises(PlanError):
            parse_plan(bytes(damaged), Path("part.plan"))
        damaged[position] ^= 0x20


def test_every_truncation_is_refused(small: bytes) -> None:
    for length in range(len(small)):
        with pytest.raises(PlanError):
            parse_plan(small[:length], Path("part.plan"))


@given(tail=st.binary(min_size=1, max_size=100))
@RELAXED
def test_appended_bytes_are_refused(small: bytes, tail: bytes) -> None:
    with pytest.raises(PlanError):
        parse_plan(small + tail, Path("part.plan"))


@given(start=st.sampled_from([b"", b"PK\x03\x04"]), rest=st.binary(max_size=600))
@RELAXED
def test_random_bytes_are_refused(start: bytes, rest: bytes) -> None:
    with pytest.raises(PlanError):
        parse_plan(start + rest, Path("part.plan"))


@given(data=st.data())
@RELAXED
def test_forged_damage_with_a_correct_seal_never_escapes_as_another_error(
    small: bytes, data: st.DataObject
) -> None:
    """A right seal over wrong content: refused with PlanError, or harmless, never a traceback."""
    damaged = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(4, len(small) - 90))] = data.draw(st.integers(0, 255))
    try:
        plan = parse_plan(reseal(bytes(damaged)), Path("part.plan"))
        for name in plan.members():
            plan.read(name)
    except PlanError:
        return
    assert plan.manifest.schema == "skrd4ad-plan/1"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"GIF89a" + bytes(300), "is not a plan"),
        (b"PK\x03\x04" + bytes(300), "is damaged"),
    ],
)
def test_foreign_files_are_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "part.plan").write_bytes(content)
    with pytest.raises(PlanError, match=rf"part\.plan {sentence}"):
        load_plan(tmp_path / "part.plan")


def test_another_zip_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "part.plan", "w") as archive:
        archive.writestr("manifest.json", "{}")
    with pytest.raises(PlanError, match="is a ZIP file, but not a plan"):
        load_plan(tmp_path / "part.plan")
    with pytest.raises(PlanError, match="cannot be read"):
        load_plan(tmp_path)
    with pytest.raises(PlanError, match="does not exist"):
        load_plan(tmp_path / "gone.plan")


def sealed_zip(manifest: bytes | None, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("model.onnx", b"m" * 100)
        if manifest is not None:
            archive.writestr("manifest.json", manifest)
        archive.comment = b"skrd4ad-plan sha256:" + b"0" * 64
    return reseal(buffer.getvalue())


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (sealed_zip(None), "has no manifest.json"),
        (sealed_zip(b"{}"), "not one this skrd4ad reads"),
        (sealed_zip(b"[1]"), "not one this skrd4ad reads"),
        (sealed_zip(b"\xff"), "not one this skrd4ad reads"),
        (sealed_zip(b'{"schema": "skrd4ad-plan/2"}'), "schema skrd4ad-plan/2, newer than"),
        (sealed_zip(b'{"schema": "other/1"}'), "not one this skrd4ad reads"),
        (sealed_zip(b"{}", zipfile.ZIP_DEFLATED), "is compressed"),
    ],
)
def test_a_manifest_we_do_not_read_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(PlanError, match=sentence):
        parse_plan(data, Path("part.plan"))


def test_an_unknown_key_and_an_unknown_contract_are_refused(tiny: ModuleType) -> None:
    text = msgspec.json.encode(tiny.tiny_manifest())
    for old, new in (
        (b'"name":"tiny"', b'"name":"tiny","surprise":1'),
        (b"skrd4ad-map/1", b"skrd4ad-map/9"),
    ):
        assert old in text
        with pytest.raises(PlanError, match="not one this skrd4ad reads"):
            parse_plan(sealed_zip(text.replace(old, new)), Path("part.plan"))


def test_a_member_that_the_manifest_does_not_know_is_refused(tiny: ModuleType) -> None:
    text = msgspec.json.encode(tiny.tiny_manifest())  # promises no members, the ZIP has one
    with pytest.raises(PlanError, match=r"members differ from the manifest: model\.onnx"):
        parse_plan(sealed_zip(text), Path("part.plan"))


def test_the_threshold_is_replaced_and_nothing_else(
    write_tiny_plan: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_tiny_plan(tmp_path / "a.plan", threshold=None)
    before = load_plan(path)
    threshold = Threshold(
        value=0.25, target_false_reject_rate=0.01, attainable_rate=0.01, n_normals=150
    )
    after = replace_threshold(path, threshold)
    assert load_plan(path).manifest == after.manifest
    assert after.manifest.threshold == threshold
    assert msgspec.structs.replace(after.manifest, threshold=None) == before.manifest
    assert after.digest != before.digest
    # The opened older plan keeps its own bytes.
    assert [before.read(n) for n in before.members()] == [after.read(n) for n in after.members()]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_threshold_that_is_no_number_is_refused_and_the_plan_kept(
    write_tiny_plan: Callable[..., Path], tmp_path: Path, value: float
) -> None:
    path = write_tiny_plan(tmp_path / "a.plan")
    before = path.read_bytes()
    threshold = Threshold(
        value=value, target_false_reject_rate=0.01, attainable_rate=0.01, n_normals=9
    )
    with pytest.raises(PlanError, match="manifest cannot be written"):
        replace_threshold(path, threshold)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.plan"]


def test_reading_an_absent_member_is_refused_by_name(tiny_plan: Path) -> None:
    with pytest.raises(PlanError, match=r"no member 'kernels\.cubin'"):
        load_plan(tiny_plan).read("kernels.cubin")
