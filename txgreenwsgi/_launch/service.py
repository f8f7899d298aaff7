"""`txgreenwsgi.service`: the server as a part of another Twisted program.

It knows the order of a start: check at the call, patch and import when the service
starts. It must never know options or signals.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from txgreenwsgi._server.errors import StartError
from txgreenwsgi._server.endpoints import check_endpoint
from txgreenwsgi._server.service import DEFAULT_LISTEN, GreenService
from txgreenwsgi._wsgi.application_check import checked_application
from txgreenwsgi.green import patched
from txgreenwsgi.monitoring import AccessLog
from txgreenwsgi.settings import Settings

from .find_app import check_spec, find_app
from .patching import PATCHABLE, parse_patch, patch as patch_modules, patch_drivers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.internet.interfaces import IStreamServerEndpoint
    from typing_extensions import Unpack

    from txgreenwsgi._wsgi.gateway import Application
    from txgreenwsgi.monitoring import ExchangeRecord
    from txgreenwsgi.settings import SettingsKeywords

__all__ = ["service"]
