"""The C examples, compiled here: the record byte for byte, and the gate on a real publisher."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
import zmq
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict
from skrd4ad.pipeline.wire_messages import HealthFields
from skrd4ad.pipeline.wire_record import pack_record, unpack_record

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "c"
GOLDEN = Path(__file__).parent / "golden"
COMPILER = shutil.which("cc") or shutil.which("gcc")
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-Wno-unused-function"]
PATIENCE_S = 15.0

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler on this machine")


def compile_c(folder: Path, name: str, *more: str) -> Path:
    assert COMPILER is not None
    program = folder / name
    command = [COMPILER, *STRICT, "-o", str(program), str(EXAMPLES / f"{name}.c"), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return program


def libzmq_flags() -> list[str]:
    """How to link libzmq: the system's, or the library inside the pyzmq wheel."""
    if Path("/usr/include/zmq.h").exists():
        return ["-lzmq"]
    bundled = sorted(Path(zmq.__file__).parent.parent.glob("pyzmq.libs/libzmq*.so*"))
    if not bundled:
        pytest.skip("neither zmq.h nor a libzmq inside the pyzmq package is on this machine")
    # The bundled library leans on others beside it, which it finds at run time.
    return [
        "-DSKRD_NO_ZMQ_H",
        str(bundled[0]),
        f"-Wl,-rpath,{bundled[0].parent}",
        "-Wl,--allow-shlib-undefined",
    ]


def test_c_and_python_read_the_same_from_the_golden_records(tmp_path: Path) -> None:
    program = compile_c(tmp_path, "read_records")
    raw = b"".join((GOLDEN / name / "2_record.bin").read_bytes() for name in ("res_ng", "res_err"))
    (tmp_path / "records.bin").write_bytes(raw)
    done = subprocess.run([program, tmp_path / "records.bin"], capture_output=True, text=True)
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


def test_c_refuses_every_single_changed_byte(tmp_path: Path) -> None:
    program = compile_c(tmp_path, "read_records")
    good = (GOLDEN / "res_ng" / "2_record.bin").read_bytes()
    for position in range(64):
        bad = bytearray(good)
        bad[position] ^= 0x10
        (tmp_path / "bad.bin").write_bytes(bad)
        done = subprocess.run([program, tmp_path / "bad.bin"], capture_output=True)
        assert done.returncode == 1, position
    (tmp_path / "bad.bin").write_bytes(good[:63])
    assert subprocess.run([program, tmp_path / "bad.bin"], capture_output=True).returncode == 1


def result(number: int, verdict: Verdict, late: bool = False) -> Result:
    return Result(
        camera="cam0",
        camera_seq=number,
        frame_id=number,
        captured_ns=time.time_ns(),
        captured_mono_ns=time.monotonic_ns(),
        captured_source="file",
        captured_error_ns=0,
        part=Part(),
        name=None,
        verdict=verdict,
        reasons=(),
        evaluated=verdict is not Verdict.ERR,
        score=0.25,
        threshold=0.5,
        defects=(),
        latency=Latency(),
        late=late,
    )


def test_the_c_gate_passes_only_good_parts_of_a_ready_line_without_losses(tmp_path: Path) -> None:
    program = compile_c(tmp_path, "gate", *libzmq_flags())
    free = "tcp://127.0.0.1:0"
    settings = PublishSettings(events=free, maps=free, map_policy="none", heartbeat_ms=1)
    with Publisher(settings, "edge07") as publisher:
        command = [str(program), publisher.events_endpoint]
        gate = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        # The gate subscribes topic by topic; hb/ is its last one and comes right behind res/.
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        time.sleep(0.2)
        publisher.send_result(result(1, Verdict.OK))  # seq 1: the line has not said it is ready
        publisher.send_state("RUNNING")
        time.sleep(0.005)
        publisher.heartbeat_if_due(HealthFields(ready=True, uptime_s=1.0))
        publisher.send_result(result(2, Verdict.OK))
        publisher.send_result(result(3, Verdict.NG))
        publisher.send_result(result(4, Verdict.ERR))
        publisher.send_result(result(5, Verdict.REVIEW))
        publisher.send_result(result(6, Verdict.OK, late=True))
        publisher.send_result(result(7, Verdict.OK))
        publisher.last_seq += 1  # one event is lost
        publisher.send_result(result(8, Verdict.OK))
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
        "10 ok REJECT",
    ]
    assert "LOST events before 10" in err
    assert gate.returncode == 6
