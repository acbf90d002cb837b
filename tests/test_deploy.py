"""The service files as systemd reads them, and install, update, rollback, uninstall as they run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from skrd4ad.errors import CalibrationError, ConfigError

REPOSITORY = Path(__file__).resolve().parent.parent
DEPLOY = REPOSITORY / "deploy"
SERVICES = ("skrd4ad@.service", "skrd4ad-serve@.service")
SLICE = "skrd4ad.slice"
UNITS = (*SERVICES, SLICE)
systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture
def units(tmp_path: Path) -> dict[str, Path]:
    """All units for a line `line1`, with a program where they expect one."""
    program = tmp_path / "current" / "bin" / "skrd4ad"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = {}
    for name in UNITS:
        text = (DEPLOY / name).read_text().replace("@PREFIX@", str(tmp_path))
        found[name] = tmp_path / name.replace("@", "@line1")
        found[name].write_text(text)
    return found


@systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_has_nothing_to_say_about_the_unit(units: dict[str, Path], name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(units[name])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Of the system's own units it may complain; of ours it must not.
    ours = [line for line in done.stderr.splitlines() if "skrd4ad" in line]
    assert ours == []


@systemd
def test_a_mistake_in_the_unit_would_be_found(units: dict[str, Path]) -> None:
    path = units[UNITS[0]]
    path.write_text(path.read_text().replace("WatchdogSec=10", "WatchdogSecs=10"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "WatchdogSecs" in done.stderr


@systemd
@pytest.mark.parametrize("name", SERVICES)
def test_the_unit_is_as_closed_as_systemd_can_tell(units: dict[str, Path], name: str) -> None:
    """`systemd-analyze security` rates from 0 (closed) to 10; a bare unit gets 9.6."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=35", str(units[name])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-600:] + done.stderr


def test_the_unit_restarts_what_a_restart_can_help(units: dict[str, Path]) -> None:
    text = units[UNITS[0]].read_text()
    prevented = re.search(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert prevented is not None
    codes = [ConfigError.exit_code, CalibrationError.exit_code]
    assert [int(code) for code in prevented[1].split()] == codes
    for setting in ("Type=notify", "WatchdogSec=10", "Restart=on-failure", "User=skrd4ad"):
        assert setting in text


def test_line_and_page_weigh_against_each_other_and_the_line_wins(units: dict[str, Path]) -> None:
    def weights(name: str) -> list[str]:
        return re.findall(r"^CPUWeight=(.*)$", units[name].read_text(), re.MULTILINE)

    for name in SERVICES:
        assert f"\nSlice={SLICE}\n" in units[name].read_text()
    assert weights(SLICE) == ["1000"]
    assert weights(SERVICES[0]) == ["900"]
    # The last one that systemd understands counts.
    assert weights(SERVICES[1]) == ["20", "idle"]


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """Variables that keep an installation below `tmp_path` and away from the network.

    pip finds setuptools, and the program its packages, where this Python has them.
    """
    return {
        **os.environ,
        "PREFIX": str(tmp_path / "opt"),
        "ETC": str(tmp_path / "etc"),
        "UNITS": str(tmp_path / "units"),
        "PYTHON": sys.executable,
        "NO_SYSTEM": "1",
        "PIP_FLAGS": "--no-deps --no-build-isolation --no-index",
        "PYTHONPATH": sysconfig.get_path("purelib"),
    }


def script(action: str, place: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DEPLOY / "install.sh"), action],
        env=place,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_install_update_rollback_and_uninstall(
    place: dict[str, str], tmp_path: Path, tiny_plan: Path
) -> None:
    pytest.importorskip("setuptools", "77", reason="pip builds the package with it, offline")
    current, etc = tmp_path / "opt" / "current", tmp_path / "etc"
    first = script("install", place)
    assert first.returncode == 0, first.stderr
    program = current / "bin" / "skrd4ad"
    shown = subprocess.run([program, "--version"], env=place, capture_output=True, text=True)
    assert shown.stdout.startswith("skrd4ad ")
    checked = subprocess.run(
        [program, "stream", "--station", etc / "line1.yaml", "--plan", tiny_plan, "--check-config"],
        env=place,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "box: edge07" in checked.stdout, checked.stderr
    unit = (tmp_path / "units" / UNITS[0]).read_text()
    assert f"ExecStart={tmp_path}/opt/current/bin/skrd4ad stream --station {etc}/%i.yaml" in unit
    assert "@PREFIX@" not in unit

    doctor = subprocess.run(
        [program, "doctor", "--json"], env=place, capture_output=True, text=True
    )
    assert json.loads(doctor.stdout)["native_resize"] == (shutil.which("gcc") is not None)

    (etc / "line1.yaml").write_text("box: mine\n")
    before = current.readlink()
    broken = script("install", {**place, "PIP_FLAGS": "--no-such-flag"})
    assert broken.returncode != 0
    assert current.readlink() == before
    assert list((tmp_path / "opt" / "releases").iterdir()) == [before]

    assert script("rollback", place).returncode == 2
    second = tmp_path / "opt" / "releases" / "zzz"
    shutil.copytree(before, second, symlinks=True)
    current.unlink()
    current.symlink_to(second)
    assert script("rollback", place).returncode == 0
    assert current.readlink() == before

    assert script("uninstall", place).returncode == 0
    assert not (tmp_path / "opt").exists()
    assert list((tmp_path / "units").iterdir()) == []
    assert (etc / "line1.yaml").read_text() == "box: mine\n"


def test_an_installation_without_root_or_without_an_action_is_one_sentence(
    place: dict[str, str],
) -> None:
    done = script("frobnicate", place)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2)
    if os.getuid() != 0:
        assert "needs root" in script("install", {**place, "NO_SYSTEM": ""}).stderr


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.jetson"])
def test_the_images_say_that_nobody_built_them(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert "NOT BUILT HERE" in text
    assert "deploy/install.sh install" in text
    page = (REPOSITORY / "docs" / "deployment.md").read_text()
    assert f"deploy/{name}" in page
