"""The training benchmark: every part of an epoch is counted, and the last line is for programs."""

from __future__ import annotations

import json

import pytest
from skrd4ad.cli import main
from skrd4ad.trainer.benchmark import CACHED, CHECK, RELEASED, TEACH, UNCACHED, epoch_seconds


def test_an_epoch_counts_steps_checks_and_its_share_of_the_teacher() -> None:
    medians = {RELEASED: 4.0, CACHED: 1.0, UNCACHED: 2.0, TEACH: 0.5, CHECK: 0.25}
    whole = epoch_seconds(medians, images=160, held_out=32, batch=16, epochs=10)
    assert whole[RELEASED] == pytest.approx(10 * 4.0)
    assert whole[CACHED] == pytest.approx(10 * 1.0 + 2 * 0.25 + 12 * 0.5 / 10)
    assert whole[UNCACHED] == pytest.approx(10 * 2.0 + 2 * 0.25)


def test_the_command_ends_with_a_line_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--image-size", "64", "--batch", "4", "--steps", "1", "--threads", "1"]
    assert main(["bench-train", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    assert figures["epoch_ratio_cached"] == pytest.approx(
        figures["epoch_seconds"][CACHED] / figures["epoch_seconds"][RELEASED]
    )
    assert all(value > 0 for value in figures["seconds"].values())


def test_an_unknown_backbone_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench-train", "--backbone", "resnet19"]) == 2
    assert "resnet19" in capsys.readouterr().err
