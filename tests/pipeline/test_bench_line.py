"""`skrd4ad bench-line`: every figure from a line that really ran."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from skrd4ad import cli


def test_the_last_line_is_the_report_and_no_part_is_missing(
    tiny_plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--parts", "30", "--null-parts", "60", "--rate", "200", "--size", "160x120"]
    assert cli.main(["bench-line", "--plan", str(tiny_plan), *arguments]) == 0
    output = capsys.readouterr().out
    report = json.loads(output.splitlines()[-1])
    assert "null engine, as fast as possible: 60 parts" in output
    assert "onnxruntime, from a video file: 30 parts" in output
    for key in ("null_parts_per_s", "real_parts_per_s", "bare_parts_per_s", "ratio_to_plain_loop"):
        assert report[key] > 0
    assert report["bare_parts_per_s"] > report["real_parts_per_s"]
    assert set(report["stages_us"]) >= {"capture", "infer", "total"}


def test_a_wrong_size_is_a_usage_error(tiny_plan: Path) -> None:
    assert cli.main(["bench-line", "--plan", str(tiny_plan), "--size", "big"]) == 2
