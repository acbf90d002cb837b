"""How many threads this process may keep busy: affinity, whole cores, and the cgroup's CPU quota.

A pool larger than that does not run faster: its threads wait for each other, and a container that
overruns its quota is stopped for the rest of the period, which shows as stalls of 50 to 100 ms.
"""

from __future__ import annotations

import os
from pathlib import Path

OWN_CGROUPS = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")


def machine_threads() -> int:
    """Cores this process may really use, at least one."""
    cores = len({_sibling_group(cpu) for cpu in allowed_cpus()})
    quota = cpu_quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def allowed_cpus() -> list[int]:
    """The CPUs that the scheduler may put this process on (taskset, cpuset), by number."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_quota(own: Path = OWN_CGROUPS, root: Path = CGROUP_ROOT) -> float | None:
    """CPUs that the tightest quota on the way from this process's cgroup to the root allows.

    None without one. Reads cgroup v2 (`cpu.max`) and v1 (`cpu.cfs_quota_us`), whichever is mounted;
    a path that is not visible from inside a container counts as the container's own root.
    """
    quotas: list[float] = []
    for folder in _cpu_folders(own, root):
        for read in (_quota_v2, _quota_v1):
            quota = read(folder)
            if quota is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _cpu_folders(own: Path, root: Path) -> list[Path]:
    """The folders of every cgroup with a CPU controller that this process is in, and above."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no cgroups on this system
        return []
    folders: list[Path] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names = controllers.split(",")
        mounts = [root, root / "unified"] if controllers == "" else []
        if "cpu" in names:
            mounts += [root / "cpu", root / controllers]
        for mount in mounts:
            inside = mount / path.lstrip("/")
            folders += [inside, *(up for up in inside.parents if up.is_relative_to(mount))]
    return folders


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    # -1 means no quota; isdecimal() is false for it.
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # this kernel, or this level, has no such file
        return ""


def _sibling_group(cpu: int) -> str:
    """The hardware threads that share one core; a second thread per core only slows GEMM down."""
    path = f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    return _text(Path(path)) or str(cpu)
