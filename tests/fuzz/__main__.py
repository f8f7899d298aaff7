"""Coverage-guided fuzzing of the parser and the channel.

    pip install "txgreenwsgi[test,fuzz]"
    python -m tests.fuzz [DIRECTORY] [libFuzzer's options, such as -max_total_time=600]

The directory keeps the corpus, inputs that reach new lines, between runs; by default
it is a new directory. The run ends at the first failing input, which is saved and
printed. This file knows atheris and nothing else.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris
from twisted.logger import globalLogBeginner

with atheris.instrument_imports(include=["txgreenwsgi"]):
    from tests.fuzz.inputs import dictionary, run, seeds


def _escaped(word: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"'


def main(arguments: list[str]) -> None:
    """Fuzz until an input fails or the time is over."""
    # The errors that the application raises on purpose would fill the terminal.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    directories = [argument for argument in arguments if not argument.startswith("-")]
    options = [argument for argument in arguments if argument.startswith("-")]
    if not directories:
        directories = [tempfile.mkdtemp(prefix="fuzz-")]
    begin = Path(tempfile.mkdtemp(prefix="seeds-"))
    for number, seed in enumerate(seeds()):
        (begin / str(number)).write_bytes(seed)
    words = begin.with_suffix(".dict")
    words.write_text("\n".join(_escaped(word) for word in dictionary() if word) + "\n")
    fuzzer: Any = atheris
    fuzzer.Setup(
        ["fuzz", f"-dict={words}", "-max_len=2000", *options, *directories, str(begin)],
        run,
    )
    fuzzer.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
