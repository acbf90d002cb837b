"""`skrd4ad bench --stages`: every figure from a line that really ran."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from skrd4ad import cli

SMALL = ["--null-parts", "60", "--rate", "200", "--camera-size", "120", "160"]


def test_the_last_line_is_the_report_and_no_part_is_missing(
    tiny_plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--stages", "--parts", "20", "--rounds", "1", *SMALL]
    assert cli.main(["bench", "--plan", str(tiny_plan), *arguments]) == 0
    output = capsys.readouterr().out
    report = json.loads(output.splitlines()[-1])
    assert "null engine, as fast as possible: 60 parts" in output
    assert "onnxruntime, from memory, last round: 20 parts" in output
    for key in ("null_parts_per_s", "bare_ms_a_part", "line_ms_a_part", "times_plain_loop"):
        assert report[key] > 0
    assert report["over_bare"] == pytest.approx(
        report["line_ms_a_part"] / report["bare_ms_a_part"] - 1, rel=0.05, abs=0.05
    )
    assert set(report["stages_us"]) >= {"capture", "infer", "total"}


def test_the_null_engine_alone_runs_no_network(
    tiny_plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "--plan", str(tiny_plan), "--stages", "--null-engine", *SMALL]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["null_p99_ms_at_rate"] > 0
    assert "bare_ms_a_part" not in report


@pytest.mark.parametrize("wrong", [["--null-engine"], ["--stages", "--parts", "0"]])
def test_what_measures_nothing_is_a_usage_error(tiny_plan: Path, wrong: list[str]) -> None:
    assert cli.main(["bench", "--plan", str(tiny_plan), *wrong]) == 2
