"""Threads follow what the machine allows this process: quotas of both cgroup versions, affinity."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from skrd4ad.engine import threads


def group(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def own(folder: Path, text: str) -> Path:
    path = folder / "own"
    path.write_text(text)
    return path


def test_version_2_takes_the_tightest_quota_on_the_way_up(tmp_path: Path) -> None:
    group(tmp_path / "slice" / "unit", cpu__max="max 100000\n")
    group(tmp_path / "slice", cpu__max="250000 100000\n")
    group(tmp_path, cpu__max="800000 100000\n")
    assert threads.cpu_quota(own(tmp_path, "0::/slice/unit\n"), tmp_path) == 2.5


def test_version_1_reads_quota_and_period_and_knows_minus_one(tmp_path: Path) -> None:
    group(tmp_path / "cpu,cpuacct" / "box", cpu__cfs_quota_us="150000", cpu__cfs_period_us="50000")
    group(tmp_path / "cpu,cpuacct", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert threads.cpu_quota(own(tmp_path, "4:cpu,cpuacct:/box\n0::/\n"), tmp_path) == 3.0


def test_a_path_from_outside_the_container_counts_as_its_root(tmp_path: Path) -> None:
    group(tmp_path, cpu__max="150000 100000\n")
    assert threads.cpu_quota(own(tmp_path, "0::/docker/0123abcd\n"), tmp_path) == 1.5


@pytest.mark.parametrize("text", ["", "0::/\n", "nonsense\n", "3:memory:/box\n"])
def test_no_quota_is_none(tmp_path: Path, text: str) -> None:
    assert threads.cpu_quota(own(tmp_path, text), tmp_path) is None
    assert threads.cpu_quota(tmp_path / "absent", tmp_path) is None


@pytest.mark.parametrize(("quota", "wanted"), [(None, 4), (2.5, 2), (0.3, 1), (16.0, 4)])
def test_threads_are_whole_cores_within_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, wanted: int
) -> None:
    # Eight hardware threads, two to a core.
    monkeypatch.setattr(threads, "allowed_cpus", lambda: list(range(8)))
    monkeypatch.setattr(threads, "_sibling_group", lambda cpu: f"{cpu % 4},{cpu % 4 + 4}")
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    assert threads.machine_threads() == wanted


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity (Linux)")
def test_affinity_limits_the_threads_of_this_process() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert threads.machine_threads() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert 1 <= threads.machine_threads() <= len(before)
