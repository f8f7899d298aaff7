"""`txgreenwsgi.service`: the server as part of another Twisted program.

It knows the order of a start: check the arguments at the call; patch, then import,
when the service starts. It must never know options or signals.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from twisted.internet.interfaces import IStreamServerEndpoint

from txgreenwsgi._server.endpoints import check_endpoint
from txgreenwsgi._server.service import DEFAULT_LISTEN, GreenService
from txgreenwsgi._wsgi.application_check import checked_application
from txgreenwsgi.green import patched
from txgreenwsgi.isolation import isolate_loaded
from txgreenwsgi.monitoring import AccessLog
from txgreenwsgi.settings import Settings

from .collecting import freezer_for
from .find_app import check_spec, find_app
from .patching import PATCHABLE, parse_patch, patch_drivers
from .patching import patch as patch_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.internet.interfaces import IReactorTime
    from typing_extensions import Unpack

    from txgreenwsgi._server.access_log import AccessLogFormat, AccessLogTarget
    from txgreenwsgi._wsgi.gateway import Application
    from txgreenwsgi.monitoring import ExchangeRecord
    from txgreenwsgi.settings import SettingsKeywords

__all__ = ["service"]


def service(
    app: Application | str,
    listen: Sequence[str | IStreamServerEndpoint] = DEFAULT_LISTEN,
    *,
    patch: str | Iterable[str] | None = None,
    gc: Literal["freeze", "unchanged"] = "freeze",
    access_log: AccessLogTarget | None = None,
    access_log_format: AccessLogFormat = "combined",
    observers: Sequence[Callable[[ExchangeRecord], object]] = (),
    reactor: IReactorTime | None = None,
    **settings: Unpack[SettingsKeywords],
) -> GreenService:
    """Return a Twisted service that serves `app`.

    For `.tac` files and programs with services of their own::

        application = Application("web")
        service(
            "myproject.wsgi:application",
            listen=["tcp:8080"],
            patch="all",
            access_log="-",
        ).setServiceParent(application)

    Patching order: modules that bind a function of the standard library before it is
    patched (`from time import sleep`) keep the one that blocks. With `app` given as a
    name, the service patches first and imports the application afterwards, when it
    starts. With `app` given as an object, the application is imported already: call
    `txgreenwsgi.monkey.patch_all()` at the top of the program, before that import.
    `patch` works there too, except for the modules that a RuntimeWarning names.

    Call from the reactor greenlet or before the reactor runs. Never parks.

    Args:
        app: the WSGI application, or its name as `--app` takes it: "module:name",
            "module:factory()", "module", or "config:FILE#NAME" for a paste.deploy
            file, whose logging sections are applied too. A name is imported when the
            service starts, after twistd has daemonized and changed the user.
        listen: endpoint strings such as "tcp:8080" or "unix:/run/app.sock", or
            endpoint objects.
        patch: the modules of the standard library to patch when the service starts:
            "all", "none", or some of "time", "os", "thread", "queue", "select",
            "selectors", "socket", "ssl", "subprocess" and "signal", as an iterable
            or separated by commas. None patches nothing, and the service logs a
            warning when it starts if the program has not patched anything either.
        gc: "freeze" excludes the loaded application from garbage collection, while
            the service runs. This shortens full collections of the process. Call
            `gc.freeze()` yourself, or give "unchanged", if other parts of the program
            load large amounts of data that they replace later.
        access_log: the file to which a line is appended for each request; "-" is the
            process's standard output. A relative path is relative to the working
            directory of the process when the service starts.
        access_log_format: "combined" (Apache's format, then the duration in seconds
            and the request id) or "json" (one object per line).
        observers: callables that receive an `ExchangeRecord` after each exchange.
        reactor: the installed reactor by default.
        settings: see `txgreenwsgi.settings`.

    Raises:
        SettingError: a setting does not exist or has an invalid value.
        TypeError: `app` is not a WSGI application (but an ASGI application, a class,
            a factory ...), or `listen` is a single string.
        ValueError: `patch`, `gc`, `access_log_format` or an endpoint string is invalid.
        StartError: `app` is not the name of an application. Starting the service
            also raises it: the application cannot be found, an endpoint cannot be
            opened (a `ListenError`, which is a `CannotListenError`), or the access
            log cannot be opened.
    """
    load_app = _loader(app, patch)
    freezer = freezer_for(gc)
    if not isinstance(listen, str):  # refused below
        for endpoint in listen:
            _check_listen(endpoint)
    log = None
    if access_log is not None:
        log = AccessLog(os.fspath(access_log), access_log_format)
    return GreenService(
        load_app,
        listen,
        Settings.from_keywords(**settings),
        observers,
        reactor,
        log,
        freezer,
    )


def _check_listen(endpoint: object) -> None:
    """Raise if `endpoint` is neither an endpoint nor the string of one."""
    if isinstance(endpoint, str):
        # twistd may change its directory and user before the service starts.
        check_endpoint(endpoint, paths_are_final=False)
    elif not IStreamServerEndpoint.providedBy(endpoint):
        raise TypeError(
            f"listen=[{endpoint!r}] is neither an endpoint nor an endpoint string: "
            f"give {f'tcp:{endpoint}' if isinstance(endpoint, int) else 'tcp:8080'!r}"
        )


def _loader(
    app: Application | str, patch: str | Iterable[str] | None
) -> Callable[[], Application]:
    """Return a function that patches, then returns the application."""
    modules: tuple[str, ...] = ()
    if patch is not None:
        try:
            modules = parse_patch(patch)
        except (ValueError, TypeError) as error:
            raise type(error)(
                f"patch={patch!r}: {error}; give 'all', 'none', or some of "
                f"{', '.join(PATCHABLE)}"
            ) from None
        # Now, not at the start: the site would warn when ports open, which is before
        # modules are patched.
        patched.choose()
    if isinstance(app, str):
        check_spec(app, "app")
    else:
        app = checked_application(app)

    def load_app() -> Application:
        if patch is not None:
            patch_modules(modules)
        isolate_loaded()
        application = find_app(app, "app") if isinstance(app, str) else app
        patch_drivers(modules)
        return application

    return load_app
