"""Every command of the tutorials is run, in the order in which a reader meets them.

The pages' code blocks become one shell script each. Changed are only what would take long or is not
there: fewer and smaller epochs, an untrained teacher, free ports.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
TUTORIALS = REPOSITORY / "docs" / "tutorials"
RUN = ("train_your_part.md", "first_camera.md", "hardening.md", "reject_gate.md")
NOT_RUN = {"jetson.md": "needs a Jetson"}
QUICK = {
    "--backbone-weights resnet18.pth": "--backbone-weights random --image-size 64 --batch 4",
    "--epochs 30": "--epochs 1",
    "--n-train 50 --n-good 20 --n-per-defect 4": "--n-train 24 --n-good 4 --n-per-defect 1",
    "--false-reject-rate 0.05": "--false-reject-rate 0.1",
}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def commands_of(text: str) -> list[str]:
    """The blocks that are for a shell; those of another language name it."""
    return [block for language, block in BLOCK.findall(text) if not language]


def test_every_tutorial_is_run_or_says_why_not() -> None:
    names = {path.name for path in TUTORIALS.glob("*.md")}
    assert names == {*RUN, *NOT_RUN}


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Runs a page's commands in a folder that all pages share; returns what they printed."""
    folder = tmp_path_factory.mktemp("reader")

    def run(page: str) -> str:
        text = (TUTORIALS / page).read_text(encoding="utf-8")
        commands = "".join(commands_of(text))
        for slow, quick in QUICK.items():
            commands = commands.replace(slow, quick)
        # The default endpoints, said aloud, so that they are replaced as well.
        sockets = "--events tcp://127.0.0.1:5555 --maps tcp://127.0.0.1:5556"
        commands = commands.replace("skrd4ad-stream ", f"skrd4ad-stream {sockets} ")
        for port in sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", commands))):
            commands = commands.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}")
        script = f"set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{commands}"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


@pytest.mark.timeout(300)
def test_the_readmes_live_page_shows_verdicts(tmp_path: Path, tiny_plan: Path) -> None:
    """The block under "See it live", with an arithmetic plan in the demo's place."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = text.partition("## See it live")[2].partition("\n## ")[0]
    (block,) = commands_of(section)
    stream, serve = [line for line in block.splitlines() if line.startswith("skrd4ad")]
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "transistor.plan").write_bytes(tiny_plan.read_bytes())
    (tmp_path / "configs").mkdir()
    station = (REPOSITORY / "configs" / "live.yaml").read_text(encoding="utf-8")
    events, maps, replay, control, page = (free_port() for _ in range(5))
    sockets = f"publish:\n  events: tcp://127.0.0.1:{events}\n  maps: tcp://127.0.0.1:{maps}\n"
    station = station.replace("publish:\n", sockets)
    for old, new in (("5555", events), ("5557", replay), ("5558", control)):
        station = station.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
        serve = serve.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    (tmp_path / "configs" / "live.yaml").write_text(station, encoding="utf-8")
    serve += f" --maps tcp://127.0.0.1:{maps} --listen 127.0.0.1:{page}"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path}
    with ExitStack() as stack:
        for command in (stream.removesuffix("&"), serve):
            words = shlex.split(command)
            process = subprocess.Popen(words, cwd=tmp_path, env=environment)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
        deadline = time.monotonic() + 120
        shown: dict[str, int] = {}
        while sum(shown.values()) < 6:
            assert time.monotonic() < deadline, f"the page shows {shown}"
            time.sleep(0.2)
            with suppress(OSError), urlopen(f"http://127.0.0.1:{page}/state.json") as answer:
                boxes = json.load(answer)["boxes"]
                shown = boxes[0]["counts"] if boxes else {}
        with urlopen(f"http://127.0.0.1:{page}/") as answer:
            assert b"<html" in answer.read()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.timeout(600)
def test_train_your_part(run_page: Callable[[str], str]) -> None:
    said = run_page("train_your_part.md")
    assert "image AUROC" in said
    assert "score > threshold is a reject" in said


@pytest.mark.timeout(600)
def test_first_camera_and_hardening(run_page: Callable[[str], str]) -> None:
    said = run_page("first_camera.md")
    assert "20 parts" in said
    assert said.count("READY plan") == 2
    said = run_page("reject_gate.md")
    decided = [json.loads(line) for line in said.splitlines() if line.startswith('{"t": ')]
    assert [one["part"] for one in decided] == [f"A-{number}" for number in range(1, 6)]
    assert "trigger 5" in said
    said = run_page("hardening.md")
    assert "READY plan" in said
    assert "plc7" in said
