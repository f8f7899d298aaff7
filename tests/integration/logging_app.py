"""An application that logs with five libraries, in a task, a thread and a spawned task.

It does nothing for the id of the request.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog
from loguru import logger
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

logging.basicConfig(level=logging.INFO, format="%(name)s says %(message)s")
_twisted = Logger("shop")
_json = structlog.wrap_logger(
    structlog.PrintLogger(), processors=[structlog.processors.JSONRenderer()]
)


def log_everywhere(number: str) -> None:
    """Log a line with each library."""
    logging.getLogger("shop.cart").info("logging %s.", number)
    structlog.get_logger().info(f"structlog {number}.")
    _json.info(f"structjson {number}.")
    logger.info("loguru {}.", number)
    _twisted.info("twisted {number}.", number=number)
    print(f"print {number}.", file=sys.stdout)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Log before and after a wait; answer with the id of the request."""
    number = environ["PATH_INFO"][1:]
    log_everywhere(f"{number}-first")
    environ["txgreenwsgi.sleep"](0.2)
    environ["txgreenwsgi.spawn"](log_everywhere, f"{number}-spawned").wait()
    environ["txgreenwsgi.to_thread"](log_everywhere, f"{number}-thread")
    log_everywhere(f"{number}-last")
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(environ["txgreenwsgi.request_id"]).encode()]
