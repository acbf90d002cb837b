"""The plan: one file with everything a verdict depends on (docs/plan.md).

A ZIP of stored members whose comment ends in the SHA-256 of every byte before it. Opening a plan
checks that hash first, so a flipped or missing byte anywhere is refused before anything is parsed.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ..built_types import built
from ..errors import ConfigError, PlanError
from .atomic import write_atomically
from .preprocess import check_input_spec
from .score_map import check_contract
from .spec import Manifest, Member, Regions, Threshold

MANIFEST = "manifest.json"
SCHEMA_FAMILY, SCHEMA_VERSION = "skrd4ad-plan", 1
_MARK = b"skrd4ad-plan sha256:"
_HEX_DIGITS = 64
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal content gives equal bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """An opened plan. Its bytes are held in memory: replacing the file does not disturb it."""

    path: Path
    manifest: Manifest
    digest: str
    """ "sha256:..." over the whole file: the plan's identity in events and reports."""
    data: bytes = field(repr=False)
    """The whole file."""
    _spans: Mapping[str, tuple[int, int]] = field(repr=False)

    def members(self) -> tuple[str, ...]:
        """Names of the members beside the manifest."""
        return tuple(self.manifest.members)

    def read(self, member: str) -> memoryview:
        """The bytes of one member, without a copy, after checking its hash in the manifest.

        Raises PlanError when the plan has no such member or the hash differs.
        """
        if member not in self._spans or member not in self.manifest.members:
            raise PlanError(
                f"{self.path} has no member '{member}' (it has {', '.join(self.members())})",
                "compile the plan again",
            )
        start, size = self._spans[member]
        view = memoryview(self.data)[start : start + size]
        expected, found = self.manifest.members[member].sha256, _sha256(view)
        if found != expected:
            raise PlanError(
                f"{self.path}: member '{member}' has sha256 {found[:12]}..., but the manifest says"
                f" {expected[:12]}...",
                "compile the plan again",
            )
        return view


def plan_bytes(manifest: Manifest, members: Mapping[str, bytes]) -> bytes:
    """A plan as bytes; the hashes and sizes of `members` are entered into the manifest.

    Raises PlanError when the manifest holds a value that does not survive its JSON form (a
    non-finite number) or describes an impossible input or score.
    """
    described = {
        name: Member(sha256=_sha256(data), size=len(data)) for name, data in members.items()
    }
    manifest = msgspec.structs.replace(manifest, members=described)
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    try:
        survived = msgspec.json.decode(text, type=built(Manifest)) == manifest
    except msgspec.ValidationError as error:
        raise PlanError(f"the manifest cannot be written: {error}") from error
    if not survived:
        raise PlanError("the manifest cannot be written: a value changes in its JSON form")
    _check_promises(manifest, "the manifest")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in ((MANIFEST, text), *members.items()):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
        archive.comment = _MARK + b"0" * _HEX_DIGITS
    sealed = buffer.getbuffer()[:-_HEX_DIGITS]
    return b"".join((sealed, _sha256(sealed).encode("ascii")))


def write_plan(path: Path | str, manifest: Manifest, members: Mapping[str, bytes]) -> Plan:
    """Write a plan atomically and open it again from the bytes that were written."""
    path = Path(path)
    data = plan_bytes(manifest, members)
    plan = parse_plan(data, path)
    write_atomically(path, data)
    return plan


def load_plan(path: Path | str) -> Plan:
    """Open a plan. Raises PlanError, naming the file, unless it is intact and of our schema."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise PlanError(
            f"{path} does not exist", "skrd4ad compile --run DIR --out FILE.plan makes a plan"
        ) from error
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror or error}") from error
    return parse_plan(data, path)


def replace_threshold(path: Path | str, threshold: Threshold) -> Plan:
    """Store `threshold` in the plan at `path`, atomically; every other member keeps its bytes."""
    return _replace_in_manifest(path, lambda old: msgspec.structs.replace(old, threshold=threshold))


def replace_regions(path: Path | str, regions: Regions) -> Plan:
    """Store one camera's regions in the plan at `path`, atomically, in place of its old ones."""

    def replaced(old: Manifest) -> Manifest:
        others = tuple(one for one in old.regions if one.camera != regions.camera)
        return msgspec.structs.replace(old, regions=(*others, regions))

    return _replace_in_manifest(path, replaced)


def _replace_in_manifest(path: Path | str, replaced: Callable[[Manifest], Manifest]) -> Plan:
    plan = load_plan(path)
    members = {name: bytes(plan.read(name)) for name in plan.members()}
    return write_plan(plan.path, replaced(plan.manifest), members)


def parse_plan(data: bytes, path: Path) -> Plan:
    """A plan from the bytes of a file; `path` is only named in errors (as `load_plan`)."""
    digest = _check_seal(data, path)
    try:
        spans = _member_spans(data)
    except (zipfile.BadZipFile, struct.error, NotImplementedError, ValueError) as error:
        raise PlanError(f"{path} is not a plan: {error}", "compile the plan again") from error
    manifest = _decode_manifest(data, spans, path)
    _check_promises(manifest, str(path))
    stored = {name: size for name, (_, size) in spans.items() if name != MANIFEST}
    promised = {name: member.size for name, member in manifest.members.items()}
    if stored != promised:
        different = sorted(
            name for name in stored | promised if stored.get(name) != promised.get(name)
        )
        raise PlanError(
            f"{path}: members differ from the manifest: {', '.join(different)}",
            "compile the plan again",
        )
    return Plan(path, manifest, f"sha256:{digest}", data, spans)


def _check_seal(data: bytes, path: Path) -> str:
    """The whole-file hash, before any other byte is believed."""
    again = "copy the plan again, or compile it again"
    if not data:
        raise PlanError(f"{path} is empty", again)
    if not data.startswith(b"PK\x03\x04"):
        raise PlanError(f"{path} is not a plan (it does not start like one)", again)
    mark_start = len(data) - _HEX_DIGITS - len(_MARK)
    if mark_start < 0 or data[mark_start:-_HEX_DIGITS] != _MARK:
        if zipfile.is_zipfile(io.BytesIO(data)) and _MARK not in data[-(1 << 16) :]:
            raise PlanError(f"{path} is a ZIP file, but not a plan", again)
        raise PlanError(f"{path} is damaged: its end is missing or changed", again)
    found = _sha256(memoryview(data)[:-_HEX_DIGITS])
    expected = data[-_HEX_DIGITS:]
    if found.encode("ascii") != expected:
        raise PlanError(
            f"{path} is damaged: its content has sha256 {found[:12]}..., but its seal says"
            f" {expected[:12].decode('ascii', 'replace')}...",
            again,
        )
    return found


def _member_spans(data: bytes) -> dict[str, tuple[int, int]]:
    """Name -> (offset, size) of the stored bytes."""
    spans: dict[str, tuple[int, int]] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.filename in spans:
                raise ValueError(f"member '{entry.filename}' is compressed or there twice")
            header = _LOCAL_HEADER.unpack_from(data, entry.header_offset)
            start = entry.header_offset + _LOCAL_HEADER.size + header[-2] + header[-1]
            if start + entry.file_size > len(data):
                raise ValueError(f"member '{entry.filename}' reaches beyond the file")
            spans[entry.filename] = (start, entry.file_size)
    return spans


def _decode_manifest(data: bytes, spans: Mapping[str, tuple[int, int]], path: Path) -> Manifest:
    if MANIFEST not in spans:
        raise PlanError(f"{path} is not a plan: it has no {MANIFEST}", "compile the plan again")
    start, size = spans[MANIFEST]
    text = data[start : start + size]
    try:
        schema = msgspec.json.decode(text, type=dict[str, msgspec.Raw]).get("schema")
        named = "" if schema is None else msgspec.json.decode(schema, type=str)
        family, _, version = named.partition("/")
        if family == SCHEMA_FAMILY and version.isdecimal() and int(version) > SCHEMA_VERSION:
            raise PlanError(
                f"{path} has schema {named}, newer than {SCHEMA_FAMILY}/{SCHEMA_VERSION}, which"
                " this skrd4ad reads",
                "update skrd4ad on this machine, or compile the plan with the version installed",
            )
        return msgspec.json.decode(text, type=built(Manifest))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PlanError(
            f"{path}: its manifest is not one this skrd4ad reads: {error}", "compile the plan again"
        ) from error


def _check_promises(manifest: Manifest, where: str) -> None:
    try:
        check_input_spec(manifest.input)
    except ConfigError as error:
        raise PlanError(f"{where}: {error}", "compile the plan again") from error
    check_contract(manifest.score)
    if manifest.batch < 1:
        raise PlanError(f"{where}: batch {manifest.batch} is not positive")
    changed = manifest.quantisation
    if (manifest.precision == "int8") != (changed is not None):
        raise PlanError(
            f"{where}: precision {manifest.precision} does not go with"
            f" {'a' if changed else 'no'} record of what int8 changed",
            "compile the plan again",
        )
    if changed is not None and changed.verdict_flips:
        raise PlanError(
            f"{where}: int8 changed {changed.verdict_flips} verdicts when the plan was made",
            "compile the plan again with --precision fp32",
        )


def _sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
