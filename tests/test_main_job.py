"""The main job, end to end, with the product's own verbs: render, train, compile, calibrate, run.

One small run serves every test here: rendered parts at 64 px, a random teacher, two epochs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from skrd4ad.cli import main

RATE = "0.1"
pytestmark = pytest.mark.timeout(400)
"""The one run takes 12 s on two free cores; several times that where others use them too."""


def skrd4ad(*arguments: str, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
    """Run one verb as a user would, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "skrd4ad", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, "SKRD4AD_LOG": "WARNING"},
    )


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/, run/ and part.plan, made by the verbs."""
    folder = tmp_path_factory.mktemp("line")
    data, run, plan = folder / "data", folder / "run", folder / "part.plan"
    steps = [
        ["render", "--out", f"{data}", "--size", "64", "--n-train", "40"]
        + ["--n-good", "6", "--n-per-defect", "1"],
        ["train", "--data", f"{data}", "--category", "rendered", "--out", f"{run}"]
        + ["--backbone", "resnet18", "--backbone-weights", "random"]
        + ["--image-size", "64", "--epochs", "2", "--batch", "8"],
        ["compile", "--run", f"{run}", "--out", f"{plan}"],
        ["calibrate", "threshold", "--plan", f"{plan}", "--run", f"{run}"]
        + ["--false-reject-rate", RATE],
    ]
    for step in steps:
        assert main(step) == 0, step
    return folder


def scores_by_torch(line: Path) -> dict[str, float]:
    """The torch reference on every test image, without any engine code in between."""
    import torch
    from skrd4ad.engine.images import read_rgb
    from skrd4ad.engine.preprocess import to_network_input
    from skrd4ad.trainer.checkpoint import load_run
    from skrd4ad.trainer.map_head import Inspector

    run = load_run(line / "run")
    inspector = Inspector(run.network, run.input, run.score).eval()
    folder = line / "data" / "rendered" / "test"
    scores = {}
    with torch.inference_mode():
        for path in sorted(folder.rglob("*.png")):
            x = torch.from_numpy(to_network_input(read_rgb(path), run.input))[None]
            scores[path.relative_to(folder).as_posix()] = float(inspector(x)[1][0])
    return scores


def streamed(line: Path) -> list[dict[str, object]]:
    """What a subscriber in another process receives while the folder is streamed."""
    program = [sys.executable, "-m", "skrd4ad"]
    stream = subprocess.Popen(
        [*program, "stream", "--camera", f"dir:{line / 'data' / 'rendered' / 'test'}"]
        + ["--plan", f"{line / 'part.plan'}", "--wait-subscribers", "1"]
        + ["--events", "tcp://127.0.0.1:0", "--maps", "tcp://127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert stream.stdout is not None
        ready = stream.stdout.readline()
        assert ready.startswith("READY"), ready
        endpoint = ready.partition("events ")[2].partition(",")[0].strip()
        listener = skrd4ad("listen", "--connect", endpoint, "--json")
        assert listener.returncode == 0, listener.stderr
        assert stream.wait(timeout=60) == 0
    finally:
        stream.kill()
        stream.wait()
    return [json.loads(row) for row in listener.stdout.splitlines()]


def test_inspect_stream_and_torch_agree_on_every_image(line: Path) -> None:
    expected = scores_by_torch(line)
    events = streamed(line)
    assert [event["name"] for event in events] == list(expected), "one event per image, in order"

    inspected = skrd4ad(
        "inspect", "--plan", f"{line / 'part.plan'}", f"{line / 'data/rendered/test'}", "--json"
    )
    assert inspected.returncode == 0, inspected.stderr
    rows = [json.loads(row) for row in inspected.stdout.splitlines() if row.startswith("{")]
    rows = [row for row in rows if "verdict" in row]
    assert len(rows) == len(events)

    for event, row in zip(events, rows, strict=True):
        name = str(event["name"])
        assert str(row["name"]).endswith(name)
        assert event["score"] == pytest.approx(expected[name], abs=1e-4)
        assert row["score"] == pytest.approx(expected[name], abs=1e-4)
        assert event["verdict"] == row["verdict"]


def test_the_plan_verifies_and_a_flipped_byte_does_not(line: Path, tmp_path: Path) -> None:
    verified = skrd4ad("verify", "--plan", f"{line / 'part.plan'}")
    assert verified.returncode == 0, verified.stderr

    data = bytearray((line / "part.plan").read_bytes())
    data[len(data) // 2] ^= 0x10
    (tmp_path / "flipped.plan").write_bytes(data)
    for verb in (["verify"], ["stream", "--camera", "test:seed=1,count=1"]):
        refused = skrd4ad(*verb, "--plan", f"{tmp_path / 'flipped.plan'}")
        assert refused.returncode == 4
        assert refused.stderr.count("error: ") == 1
        assert "flipped.plan is damaged" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_plan_without_a_threshold_is_not_streamed(line: Path, tmp_path: Path) -> None:
    assert main(["compile", "--run", f"{line / 'run'}", "--out", f"{tmp_path / 'new.plan'}"]) == 0
    refused = skrd4ad("stream", "--camera", "test:count=1", "--plan", f"{tmp_path / 'new.plan'}")
    assert refused.returncode == 5
    assert "skrd4ad calibrate threshold" in refused.stderr


BAD_INPUT = [
    pytest.param(["stream", "--camera", "7", "--plan", "PLAN"], 3, id="no such camera"),
    pytest.param(["stream", "--camera", "dir:/no/such", "--plan", "PLAN"], 3, id="no such folder"),
    pytest.param(["stream", "--camera", "tset:", "--plan", "PLAN"], 2, id="unknown scheme"),
    pytest.param(["stream", "--camera", "test:sed=1", "--plan", "PLAN"], 2, id="unknown key"),
    pytest.param(["stream", "--camera", "test:", "--plan", "/no/x.plan"], 4, id="no such plan"),
    pytest.param(["train", "--data", "/no/such", "--out", "OUT"], 2, id="no training folder"),
    pytest.param(["train", "--data", "EMPTY", "--out", "OUT"], 2, id="no images"),
    pytest.param(["compile", "--run", "/no/run", "--out", "OUT/x.plan"], 2, id="no run folder"),
    pytest.param(["inspect", "--plan", "PLAN", "/no/image.png"], 2, id="no such image"),
]


@pytest.mark.parametrize(("arguments", "code"), BAD_INPUT)
def test_bad_input_is_one_sentence_and_the_right_exit_code(
    line: Path, tmp_path: Path, arguments: list[str], code: int
) -> None:
    (tmp_path / "empty").mkdir()
    places = {
        "PLAN": f"{line / 'part.plan'}",
        "OUT": f"{tmp_path / 'out'}",
        "OUT/x.plan": f"{tmp_path / 'x.plan'}",
        "EMPTY": f"{tmp_path / 'empty'}",
    }
    done = skrd4ad(*[places.get(word, word) for word in arguments])
    assert done.returncode == code, done.stderr
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"], "nothing half-written"
