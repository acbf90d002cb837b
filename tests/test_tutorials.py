"""Every command of the tutorials is run, in the order in which a reader meets them.

The pages' code blocks become one shell script each. Changed are only what would take long or is not
there: fewer and smaller epochs, an untrained teacher, free ports.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).resolve().parent.parent / "docs" / "tutorials"
RUN = ("train_your_part.md", "first_camera.md", "hardening.md")
NOT_RUN = {"jetson.md": "needs a Jetson"}
QUICK = {
    "--backbone-weights resnet18.pth": "--backbone-weights random --image-size 64 --batch 4",
    "--epochs 30": "--epochs 1",
    "--n-train 50 --n-good 20 --n-per-defect 4": "--n-train 24 --n-good 4 --n-per-defect 1",
    "--false-reject-rate 0.05": "--false-reject-rate 0.1",
}
BLOCK = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_every_tutorial_is_run_or_says_why_not() -> None:
    names = {path.name for path in TUTORIALS.glob("*.md")}
    assert names == {*RUN, *NOT_RUN}


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Runs a page's commands in a folder that all pages share; returns what they printed."""
    folder = tmp_path_factory.mktemp("reader")

    def run(page: str) -> str:
        text = (TUTORIALS / page).read_text(encoding="utf-8")
        commands = "".join(BLOCK.findall(text))
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
    said = run_page("hardening.md")
    assert "READY plan" in said
    assert "plc7" in said
