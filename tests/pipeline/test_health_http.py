"""/metrics, /healthz and /readyz: of a real line, of one that hangs, and in the face of readers."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from skrd4ad import cli
from skrd4ad.errors import ConfigError, NetworkError
from skrd4ad.pipeline import wire_messages as wire
from skrd4ad.pipeline.monitor.health_tap import HealthSettings, HealthTap
from skrd4ad.pipeline.monitor.metrics import METRICS, ProcessUse, render
from skrd4ad.pipeline.monitor.snapshot import SILENT_AFTER_S, Snapshot, not_ready, unhealthy
from skrd4ad.pipeline.outlet import Alarm

PATIENCE_S = 60.0
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "health.md").read_text()
QUANTILES = wire.QuantileFields(n=8, p50=6000, p90=6100, p99=6900, max=7000, sum=48_000)
CAMERA = wire.CameraFields(
    state="running",
    admitted=9,
    reconnects=1,
    last_age_ms=7,
    delivers=True,
    lat_us={"total": QUANTILES, "infer": QUANTILES},
    drift=wire.DriftFields(ng_rate=0.25, score=0.4, brightness=101.5, saturated=0.0, sharpness=2.0),
    refused=2,
    unclaimed=3,
)


def snapshot(camera: wire.CameraFields = CAMERA, **changes: Any) -> Snapshot:
    health = wire.HealthFields(
        ready=True,
        uptime_s=12.5,
        cams={"cam0": camera},
        drops={"admission:superseded": 3},
        balance=wire.BalanceFields(admitted=9, results=5, dropped=3, pending=1),
        backend='onnxruntime "fp32"\nback\\slash',
        stalled=changes.pop("stalled", ()),
        gates={"cam0": wire.GateFields(passed=4, rejected=1, missing=1)},
    )
    values = {
        "state": "RUNNING",
        "results": {"cam0": wire.CountFields(ok=3, ng=1, err=1)},
        "reasons": {"cam0": {"late": 1}},
        "alarms": ((1001, "cam0"),),
        **changes,
    }
    return Snapshot(box="b", boot="0" * 16, version="1", pid=1, health=health, **values)


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """As a scraper reads them; raises ValueError for text that is not of the format."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scraper_reads_every_metric_and_its_labels() -> None:
    text = render(snapshot(), 0.5, ProcessUse(1.5, 1000, 7, 20))
    found = samples(text)
    assert set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)) == {one.name for one in METRICS}
    assert found["skrd4ad_results_total", (("camera", "cam0"), ("verdict", "ng"))] == 1
    assert found["skrd4ad_uninspected_total", (("camera", "cam0"), ("reason", "late"))] == 1
    assert found["skrd4ad_orders_refused_total", (("camera", "cam0"),)] == 2
    gate = (("camera", "cam0"), ("outcome", "rejected"))
    assert found["skrd4ad_gate_parts_total", gate] == 1
    stage = (("camera", "cam0"), ("stage", "total"))
    quantile = (("camera", "cam0"), ("quantile", "0.99"), ("stage", "total"))
    assert found["skrd4ad_latency_seconds", quantile] == 0.0069
    assert found["skrd4ad_latency_seconds_sum", stage] == 0.048
    assert found["skrd4ad_latency_seconds_count", stage] == 8
    assert found["skrd4ad_parts_unaccounted", ()] == 0
    assert found["skrd4ad_ready", ()] == 1
    assert next(key for key in found if key[0] == "skrd4ad_info")[1][0] == (
        "backend",
        'onnxruntime "fp32"\nback\\slash',
    )
    for name, labels in found:
        metric = next(one for one in METRICS if name.startswith(one.name))
        assert {label for label, _ in labels} <= set(metric.labels.split())


def test_every_metric_is_in_the_documents_with_its_labels() -> None:
    for metric in METRICS:
        labels = f"`{metric.labels}`" if metric.labels else ""
        row = f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"
        assert row.replace("  ", " ") in PAGE.replace("  ", " "), row


@pytest.mark.parametrize(
    ("word", "age_s", "healthy", "ready"),
    [
        (snapshot(), 0.0, True, True),
        (None, 0.0, True, False),
        (None, SILENT_AFTER_S + 1, False, False),
        (snapshot(), SILENT_AFTER_S + 1, False, False),
        (snapshot(stalled=("infer",)), 0.0, False, False),
        (snapshot(state="DEGRADED"), 0.0, True, False),
        (snapshot(wire.CameraFields(state="reopening", admitted=1, reconnects=0,
                                    last_age_ms=9, delivers=False)), 0.0, True, False),
    ],
)  # fmt: skip
def test_healthy_and_ready(word: Snapshot | None, age_s: float, healthy: bool, ready: bool) -> None:
    assert (unhealthy(word, age_s) == []) is healthy
    assert (not_ready(word, age_s) == []) is ready


def get(url: str, page: str) -> tuple[int, str]:
    """Status and text; (0, "") while nobody answers."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", page)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (ConnectionError, TimeoutError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def until(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.05)


def test_a_running_line_is_healthy_until_it_hangs_and_again_after(
    streams: ModuleType, tiny_plan: Path
) -> None:
    options = ("--camera", "test:rate=20", "--health", "127.0.0.1:0")
    with streams.running("--plan", tiny_plan, *options) as line:
        process, url = line.process, line.ready["health"]
        until(lambda: get(url, "/readyz")[0] == 200, "ready")
        assert get(url, "/healthz") == (200, "ok\n")
        until(lambda: get(url, "/metrics")[0] == 200, "metrics")
        found = samples(get(url, "/metrics")[1])
        assert found["skrd4ad_parts_unaccounted", ()] == 0
        assert found["process_threads", ()] > 4
        assert get(url, "/secret")[0] == 404
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: get(url, "/healthz")[0] == 503, "a stopped process is not healthy")
        status, reason = get(url, "/readyz")
        assert status == 503
        assert "has said nothing for" in reason
        os.kill(process.pid, signal.SIGCONT)
        until(lambda: get(url, "/readyz")[0] == 200, "ready again")
        process.terminate()
        line.summary()
        assert get(url, "/healthz")[0] == 0


@contextmanager
def tap() -> Iterator[HealthTap]:
    one = HealthTap(HealthSettings(listen="127.0.0.1:0"), "b", "0" * 16, lambda: ((6001, ""),))
    one.open(lambda alarm: None)
    try:
        one.on_state("RUNNING", "")
        one.on_alarm(Alarm("tap_failed", True))
        yield one
    finally:
        one.close()


def test_a_killed_health_process_is_replaced_on_the_same_port() -> None:
    with tap() as one:
        one.on_heartbeat(snapshot().health)
        until(lambda: get(one.url, "/readyz")[0] == 200, "ready")
        first = one.process
        assert first is not None
        first.kill()

        # The kernel takes connections for the next one meanwhile.
        def told_again() -> bool:
            one.on_heartbeat(snapshot().health)
            return one.process not in (None, first) and get(one.url, "/readyz")[0] == 200

        until(told_again, "another process")
    assert one.process is not None
    assert one.process.poll() is not None


def test_readers_that_do_nothing_keep_nobody_out() -> None:
    with tap() as one:
        address = one.url.removeprefix("http://").split(":")
        idle = [socket.create_connection((address[0], int(address[1]))) for _ in range(12)]
        one.on_heartbeat(snapshot().health)
        until(lambda: get(one.url, "/readyz")[0] == 200, "ready beside idle readers")
        for connection in idle:
            connection.close()


def test_an_address_that_cannot_be_served_ends_the_start() -> None:
    with tap() as one:
        taken = HealthTap(
            HealthSettings(listen=one.url.removeprefix("http://")), "b", "0" * 16, tuple
        )
        with pytest.raises(NetworkError, match="already in use"):
            taken.open(lambda alarm: None)


@pytest.mark.parametrize(
    ("listen", "error"), [("0.0.0.0:0", NetworkError), ("9464", ConfigError), ("x:y", ConfigError)]
)
def test_other_hosts_are_let_in_only_when_that_is_said(listen: str, error: type[Exception]) -> None:
    one = HealthTap(HealthSettings(listen=listen), "b", "0" * 16, tuple)
    with pytest.raises(error):
        one.open(lambda alarm: None)


def test_a_port_in_use_is_exit_code_6(tiny_plan: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = ["--plan", str(tiny_plan), "--camera", "test:count=1", "--health", listen]
        free = ["--events", "tcp://127.0.0.1:0", "--maps", "tcp://127.0.0.1:0"]
        assert cli.main(["stream", *arguments, *free]) == 6
