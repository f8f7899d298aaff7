"""Load from wrk (https://github.com/wg/wrk).

This file knows wrk's options and output. One thread of wrk is faster than every
server measured here.
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
    """Request `url` on all connections and count the complete responses.

    Args:
        url: an http or https URL.
        connections: number of open connections.
        seconds: duration of the load.
        script: file name of a Lua script in this folder that builds the requests.
        fields: further header fields as "Name: value".

    Returns:
        The number of responses, with a remark on failures.

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
        raise CannotMeasure("wrk did not exit in time") from None
    count, rate = _COUNT.search(ran.stdout), _RATE.search(ran.stdout)
    if ran.returncode or count is None or rate is None:
        raise CannotMeasure(f"wrk failed: {ran.stderr.strip() or ran.stdout.strip()}")
    problems = []
    if refused := _REFUSED.search(ran.stdout):
        problems.append(f"{refused[1]} responses had an error status")
    if broken := _BROKEN.search(ran.stdout):
        words = ("connections failed", "reads failed", "writes failed", "timeouts")
        counts = zip(broken.groups(), words, strict=True)
        problems += [f"{count} {word}" for count, word in counts if count != "0"]
    if count[1] == "0":
        raise CannotMeasure(", ".join(problems) or "no request was answered")
    # The printed duration is rounded to 10 ms, the rate is exact.
    taken = int(count[1]) / float(rate[1])
    return Counted(int(count[1]), taken, ", ".join(problems))
