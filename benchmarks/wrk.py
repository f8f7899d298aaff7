"""Requests, counted by wrk: https://github.com/wg/wrk.

It knows wrk's words and the lines it prints. One thread of it is faster than
anything measured here.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from .client import Counted
from .process import CannotMeasure

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["count_requests"]

_SPARE_SECONDS = 20
_HERE = Path(__file__).parent
_COUNT = re.compile(r"^\s*(\d+) requests in ", re.M)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)", re.M)
_REFUSED = re.compile(r"^\s*Non-2xx or 3xx responses: (\d+)", re.M)
_BROKEN = re.compile(
    r"^\s*Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", re.M
)


def count_requests(
    url: str,
    connections: int,
    seconds: int,
    script: str = "",
    fields: Sequence[str] = (),
) -> Counted:
    """Ask for `url` on all connections for so many seconds.

    Args:
        url: of http or https.
        connections: how many are open at once.
        seconds: how long to ask.
        script: the name of a Lua file beside this one that makes the requests.
        fields: "Name: value" of further header fields.

    Returns:
        The complete responses, with a remark on what failed.

    Raises:
        CannotMeasure: wrk failed, or no request was answered.
    """
    command = ["wrk", "--threads=1", f"--connections={connections}"]
    command += [f"--duration={seconds}s", "--timeout=10s"]
    if script:
        command += ["--script", str(_HERE / script)]
    for field in fields:
        command += ["--header", field]
    try:
        ran = subprocess.run(
            [*command, url],
            capture_output=True,
            text=True,
            timeout=seconds + _SPARE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotMeasure("wrk did not end") from None
    count, rate = _COUNT.search(ran.stdout), _RATE.search(ran.stdout)
    if ran.returncode or count is None or rate is None:
        raise CannotMeasure(f"wrk failed: {ran.stderr.strip() or ran.stdout.strip()}")
    problems = []
    if refused := _REFUSED.search(ran.stdout):
        problems.append(f"{refused[1]} responses were no success")
    if broken := _BROKEN.search(ran.stdout):
        words = ("connections failed", "reads failed", "writes failed", "timeouts")
        counts = zip(broken.groups(), words, strict=True)
        problems += [f"{count} {word}" for count, word in counts if count != "0"]
    if count[1] == "0":
        raise CannotMeasure(", ".join(problems) or "no request was answered")
    # The time that is printed is rounded to ten milliseconds; the rate is not.
    taken = int(count[1]) / float(rate[1])
    return Counted(int(count[1]), taken, ", ".join(problems))
