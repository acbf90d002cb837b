"""The C and C# examples, compiled here: the record byte for byte, and the gate on a real publisher.

C needs a compiler, C# needs Mono (Debian packages mono-mcs and mono-runtime); what is absent skips.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import zmq
from skrd4ad.pipeline.clock import Clock
from skrd4ad.pipeline.key_files import read_public_key, write_key_pair, write_public_key
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Verdict
from skrd4ad.pipeline.security import new_key_pair
from skrd4ad.pipeline.wire_messages import HealthFields
from skrd4ad.pipeline.wire_record import pack_record, unpack_record

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GOLDEN = Path(__file__).parent / "golden"
COMPILER = shutil.which("cc") or shutil.which("gcc")
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-Wno-unused-function"]
FREE = "tcp://127.0.0.1:0"
PATIENCE_S = 60.0
READY = HealthFields(ready=True, uptime_s=1.0)

Build = Callable[[str], list[str]]
"""From a program's name to the command that runs it."""


def built(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout


def c_builder(folder: Path) -> Build:
    if COMPILER is None:
        pytest.skip("no C compiler on this machine")

    def build(name: str) -> list[str]:
        program = folder / name
        more = libzmq_flags() if name == "gate" else []
        built(
            [str(COMPILER), *STRICT, "-o", str(program), str(EXAMPLES / "c" / f"{name}.c"), *more]
        )
        return [str(program)]

    return build


def libzmq_flags() -> list[str]:
    """How to link libzmq: the system's, or the library inside the pyzmq wheel."""
    if Path("/usr/include/zmq.h").exists():
        return ["-lzmq"]
    bundled = bundled_libzmq()
    # The bundled library leans on others beside it, which it finds at run time.
    return [
        "-DSKRD_NO_ZMQ_H",
        str(bundled),
        f"-Wl,-rpath,{bundled.parent}",
        "-Wl,--allow-shlib-undefined",
    ]


def bundled_libzmq() -> Path:
    found = sorted(Path(zmq.__file__).parent.parent.glob("pyzmq.libs/libzmq*.so*"))
    if not found:
        pytest.skip("neither a libzmq of the system nor one inside the pyzmq package is here")
    return found[0]


def csharp_builder(folder: Path) -> Build:
    if shutil.which("mcs") is None or shutil.which("mono") is None:
        pytest.skip("no Mono on this machine (Debian packages mono-mcs and mono-runtime)")
    names = {"gate": "Gate", "read_records": "ReadRecords"}

    def build(name: str) -> list[str]:
        sources = [str(EXAMPLES / "csharp" / f"{one}.cs") for one in (names[name], "SkrdRecord")]
        program = folder / f"{names[name]}.exe"
        built(["mcs", "-warnaserror", f"-out:{program}", *sources])
        return ["mono", str(program)]

    return build


def with_libzmq(folder: Path) -> dict[str, str]:
    """Surroundings in which Mono finds a library called libzmq.so."""
    systems = sorted(Path("/usr/lib").glob("*/libzmq.so*"))
    library = systems[0] if systems else bundled_libzmq()
    (folder / "libzmq.so").symlink_to(library)
    return os.environ | {"LD_LIBRARY_PATH": f"{folder}:{library.parent}"}


@pytest.fixture(scope="module", params=["c", "csharp"])
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp(request.param)
    return (c_builder if request.param == "c" else csharp_builder)(folder)


def run(command: list[str], *words: object) -> subprocess.CompletedProcess[str]:
    full = [*command, *map(str, words)]
    return subprocess.run(full, capture_output=True, text=True, timeout=PATIENCE_S)


def test_both_languages_and_python_read_the_same_from_the_golden_records(
    build: Build, tmp_path: Path
) -> None:
    raw = b"".join((GOLDEN / name / "2_record.bin").read_bytes() for name in ("res_ng", "res_err"))
    (tmp_path / "records.bin").write_bytes(raw)
    done = run(build("read_records"), tmp_path / "records.bin")
    assert done.returncode == 0, done.stderr
    for line, record_bytes in zip(done.stdout.splitlines(), (raw[:64], raw[64:]), strict=True):
        record, words = unpack_record(record_bytes), line.split()
        assert pack_record(record) == record_bytes
        assert words[1] == record.verdict
        assert int(words[2]) == record_bytes[7]
        assert [int(words[at]) for at in (0, 3, 4, 5, 6, 9, 10, 11, 12, 13)] == [
            record.seq,
            record.boot_lo,
            record.trigger_seq,
            record.captured_ns,
            record.total_us,
            record.region_id,
            record.n_regions,
            record.ok_count,
            record.ng_count,
            record.err_count,
        ]
        assert [float(words[at]) for at in (7, 8)] == [record.score, record.threshold]


def test_every_single_changed_byte_is_refused(build: Build, tmp_path: Path) -> None:
    command = build("read_records")
    good = (GOLDEN / "res_ng" / "2_record.bin").read_bytes()
    # A new process for each byte costs Mono a tenth of a second: there every fifth must do.
    for position in range(0, 64, 5 if command[0] == "mono" else 1):
        bad = bytearray(good)
        bad[position] ^= 0x10
        (tmp_path / "bad.bin").write_bytes(bad)
        assert run(command, tmp_path / "bad.bin").returncode == 1, position
    (tmp_path / "bad.bin").write_bytes(good[:63])
    assert run(command, tmp_path / "bad.bin").returncode == 1


def test_the_gate_passes_only_good_fresh_parts_of_a_ready_line_without_losses(
    box_parts: ModuleType, build: Build, tmp_path: Path
) -> None:
    command, surroundings, result = build("gate"), None, box_parts.result
    if command[0] == "mono":
        surroundings = with_libzmq(tmp_path)
    behind_ns = 0
    clock = Clock(wall_ns=time.time_ns, mono_ns=lambda: time.monotonic_ns() - behind_ns)
    settings = PublishSettings(events=FREE, maps=FREE, map_policy="none", heartbeat_ms=1)
    with Publisher(settings, "edge07", clock=clock) as publisher:
        gate = subprocess.Popen(
            [*command, publisher.events_endpoint],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=surroundings,
        )
        # The gate subscribes topic by topic; hb/ is its last one and comes right behind res/.
        assert publisher.wait_for_subscribers(1, PATIENCE_S), gate.poll()
        time.sleep(0.2)
        publisher.send_result(result(1, Verdict.OK))  # seq 1: the line has not said it is ready
        publisher.send_state("RUNNING")
        time.sleep(0.005)
        publisher.heartbeat_if_due(READY)
        publisher.send_result(result(2, Verdict.OK))
        publisher.send_result(result(3, Verdict.NG))
        publisher.send_result(result(4, Verdict.ERR))
        publisher.send_result(result(5, Verdict.REVIEW))
        publisher.send_result(result(6, Verdict.OK, late=True))
        publisher.send_result(result(7, Verdict.OK))
        behind_ns = 60_000_000_000  # a message that was a minute on its way
        publisher.send_result(result(8, Verdict.OK))
        behind_ns = 0
        publisher.send_result(result(9, Verdict.OK))
        publisher.last_seq += 1  # one event is lost
        publisher.send_result(result(10, Verdict.OK))
        publisher.close()
        out, err = gate.communicate(timeout=PATIENCE_S)
    assert out.splitlines() == [
        "1 ok REJECT",
        "3 ok PASS",
        "4 ng REJECT",
        "5 err REJECT",
        "6 review REJECT",
        "7 ok REJECT",
        "8 ok PASS",
        "9 ok REJECT",
        "10 ok PASS",
        "12 ok REJECT",
    ]
    assert "LOST events before 12" in err
    assert gate.returncode == 6


def test_the_gate_rejects_everything_while_the_box_is_silent(
    box_parts: ModuleType, build: Build, tmp_path: Path
) -> None:
    command, surroundings, result = build("gate"), None, box_parts.result
    if command[0] == "mono":
        surroundings = with_libzmq(tmp_path)
    settings = PublishSettings(events=FREE, maps=FREE, map_policy="none", heartbeat_ms=1)
    with Publisher(settings, "edge07") as publisher:
        gate = subprocess.Popen(
            [*command, publisher.events_endpoint],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=surroundings,
        )
        assert publisher.wait_for_subscribers(1, PATIENCE_S), gate.poll()
        time.sleep(0.2)
        publisher.send_state("RUNNING")
        time.sleep(0.005)
        publisher.heartbeat_if_due(READY)
        assert gate.stderr is not None
        assert gate.stderr.readline() == "SILENCE: reject everything\n"
        publisher.send_result(result(1, Verdict.OK))  # nobody has said again that it is ready
        publisher.close()
        out, _ = gate.communicate(timeout=PATIENCE_S)
    assert out.splitlines() == ["2 ok REJECT"]


def test_the_gate_gets_in_with_its_key_and_not_with_another(
    box_parts: ModuleType, build: Build, tmp_path: Path
) -> None:
    command, surroundings, result = build("gate"), None, box_parts.result
    if command[0] == "mono":
        surroundings = with_libzmq(tmp_path)
    write_key_pair(tmp_path / "keys", "server", "server", *new_key_pair())
    for name in ("press3", "stranger"):
        write_key_pair(tmp_path / "me", name, "gate", *new_key_pair())
    key = read_public_key(tmp_path / "me/press3.key")
    write_public_key(tmp_path / "keys/allowed/press3.key", key)
    settings = PublishSettings(
        events=FREE, maps=FREE, map_policy="none", heartbeat_ms=20, keys=str(tmp_path / "keys")
    )

    def gate(name: str, server: str = "keys/server.key") -> subprocess.Popen[str]:
        words = [publisher.events_endpoint, tmp_path / server, tmp_path / f"me/{name}.secret"]
        full = [*command, *map(str, words)]
        pipe = subprocess.PIPE
        return subprocess.Popen(full, stdout=pipe, stderr=pipe, text=True, env=surroundings)

    with Publisher(settings, "edge07") as publisher:
        wrong = gate("press3", "me/nothing.key")
        _, err = wrong.communicate(timeout=PATIENCE_S)
        assert (wrong.returncode, "nothing.key" in err) == (2, True)
        stranger = gate("stranger")
        deadline = time.monotonic() + PATIENCE_S
        while not publisher._services._door._refusals.qsize():  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert publisher.subscribers == 0
        ours = gate("press3")
        assert publisher.wait_for_subscribers(1, PATIENCE_S), ours.poll()
        time.sleep(0.2)
        publisher.send_state("RUNNING")
        publisher.heartbeat_if_due(READY)
        publisher.send_result(result(1, Verdict.OK))
        publisher.close()
        out, _ = ours.communicate(timeout=PATIENCE_S)
        stranger.kill()
        heard, _ = stranger.communicate(timeout=PATIENCE_S)
    # seq 3, or later: the refusal is an alarm's start and end.
    assert [line.split()[1:] for line in out.splitlines()] == [["ok", "PASS"]]
    assert heard == ""
