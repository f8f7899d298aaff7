"""The number of CPUs that this process may use.

It knows affinity and Linux control groups. It must never know workers.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["quota_of", "usable_cpus"]


def usable_cpus() -> int:
    """Return the number of CPUs by affinity and by the limit of the control group."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this platform
        count = os.cpu_count() or 1
    quota = _group_quota()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def quota_of(text: str) -> float | None:
    """Return the CPUs that `cpu.max` of a control group allows; None for no limit."""
    quota, _, period = text.strip().partition(" ")
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return None
    return int(quota) / int(period)


def _group_quota() -> float | None:
    """Return the smallest limit of this process's control group and those above it."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text("ascii").splitlines()
    except (OSError, ValueError):
        return None
    group = next((line[3:] for line in lines if line.startswith("0::/")), None)
    if group is None:  # no control groups, or version 1
        return None
    found: list[float] = []
    place = root / group.strip("/")
    for directory in (place, *place.parents):
        if directory != root and root not in directory.parents:
            break
        try:
            quota = quota_of((directory / "cpu.max").read_text("ascii"))
        except (OSError, ValueError):
            continue
        if quota is not None:
            found.append(quota)
    return min(found, default=None)
