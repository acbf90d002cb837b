"""The demo's checks can fail, its table adds up, and it never removes what it did not make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from skrd4ad import demo
from skrd4ad.cli import main

RATE = {"count": 1, "total": 20, "rate": 0.05, "low": 0.001, "high": 0.249}


@pytest.fixture
def place(tmp_path: Path) -> demo.Place:
    place = demo.Place(tmp_path)
    for name in ("good/000.png", "good/001.png", "stain/000.png"):
        (place.test / name).parent.mkdir(parents=True, exist_ok=True)
        (place.test / name).touch()
    return place


@pytest.fixture
def figures(place: demo.Place) -> dict[str, Any]:
    """What `evaluate --json` writes, as far as the demo reads it."""
    pixel = {"aupro_30": 0.8}
    stain = {"defect": "stain", "n_images": 1, "image_auroc": 1.0, "pixel": pixel}
    return {
        "n_good": 2,
        "n_defective": 1,
        "image": {"auroc": 0.97},
        "pixel": pixel,
        "deployed": {"false_reject": RATE, "escape": RATE},
        "by_defect": [stain],
        "scores": [{"path": str(place.test / e["name"]), "score": e["score"]} for e in events()],
    }


def events() -> list[dict[str, Any]]:
    """What `listen --json` prints, as far as the demo reads it."""
    parts = (("good/000.png", "ok", 0.1), ("good/001.png", "ng", 0.6), ("stain/000.png", "ng", 0.9))
    return [
        {"name": name, "verdict": verdict, "score": score, "cam_seq": number}
        for number, (name, verdict, score) in enumerate(parts, start=1)
    ]


def missed(place: demo.Place, figures: dict[str, Any], heard: list[dict[str, Any]]) -> list[str]:
    checks = demo._checks(place, figures, heard)
    assert len(checks) == 7
    return [check.promise for check in checks if not check.holds]


def test_a_good_demo_misses_nothing(place: demo.Place, figures: dict[str, Any]) -> None:
    assert missed(place, figures, events()) == []


def test_each_promise_is_missed_on_its_own(place: demo.Place, figures: dict[str, Any]) -> None:
    low = figures | {"image": {"auroc": 0.9499}}
    assert missed(place, low, events()) == ["image AUROC at least 0.95"]
    low = figures | {"pixel": {"aupro_30": 0.7499}}
    assert missed(place, low, events()) == ["AUPRO@0.3 at least 0.75"]
    narrow = figures["deployed"] | {"false_reject": RATE | {"low": 0.06}}
    assert len(missed(place, figures | {"deployed": narrow}, events())) == 1
    assert missed(place, figures, events()[::-1]) == ["in order"]
    assert set(missed(place, figures, events()[:2])) == {
        "one event for every image",
        "in order",
        "none lost",
    }
    shifted = [*events()[:2], events()[2] | {"score": 0.9002}]
    assert missed(place, figures, shifted) == ["stream and evaluate agree to 0.0001 in score"]
    uninspected = [*events()[:2], events()[2] | {"score": None}]
    assert missed(place, figures, uninspected) == ["stream and evaluate agree to 0.0001 in score"]


def test_table_counts_verdicts_by_kind_of_part(figures: dict[str, Any]) -> None:
    summary = {"parts_per_s": 20.0, "p50_ms": 40.0, "p99_ms": 60.0}
    lines = demo._table(figures, events(), summary)
    good = next(line for line in lines if line.startswith("good")).split()
    stain = next(line for line in lines if line.startswith("stain")).split()
    assert good == ["good", "2", "1", "1", "0", "0"]
    assert stain == ["stain", "1", "0", "1", "0", "0", "1.000", "0.800"]
    assert any("1 of 20 = 5.0%" in line for line in lines)


def test_a_folder_that_the_demo_did_not_make_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "did not make" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_its_own_folder_is_made_anew(tmp_path: Path) -> None:
    demo._make_folder(tmp_path / "demo")
    (tmp_path / "demo" / "old.json").touch()
    demo._make_folder(tmp_path / "demo")
    assert [p.name for p in (tmp_path / "demo").iterdir()] == [demo.MARKER]


def test_demo_configuration_is_one_that_the_trainer_takes(tmp_path: Path) -> None:
    from skrd4ad.trainer.config import load_config

    path = Path(demo.__file__).with_name("configs") / "demo.yaml"
    config = load_config(path, {"data": str(tmp_path), "out": str(tmp_path / "run")})
    assert config.backbone_weights == "random"  # no download, no file of the user


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_the_whole_demo_keeps_its_promises(tmp_path: Path) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    assert json.loads((tmp_path / "demo" / "metrics.json").read_text())
