"""Checks of an object that is passed as the application."""

from __future__ import annotations

import functools
import types
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import demo_app

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import GreenSite, GreenWSGIResource, service
from txgreenwsgi._wsgi.application_check import checked_application

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def view(kind: str, environ: object, start_response: object) -> Iterable[bytes]:
    """Be an application once `kind` is bound."""
    return []


class Site:
    """An object with an application as its method `__call__`."""

    def __call__(self, environ: object, start_response: object) -> Iterable[bytes]:
        """Be an application."""
        return []


class Response:
    """A class of PEP 3333, whose instances are iterated over."""

    def __init__(self, environ: object, start_response: object) -> None: ...

    def __iter__(self) -> Iterator[bytes]:
        return iter([])


class Factory:
    """A class that returns a list in place of an instance."""

    def __new__(cls, environ: object, start_response: object) -> Any:
        """Be an application."""
        return []


async def asgi(scope: object, receive: object, send: object) -> None:
    """Be an ASGI application."""


class AsgiSite:
    """An ASGI application as frameworks define it."""

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        """Be an ASGI application."""


def synchronous_asgi(scope: object, receive: object, send: object) -> object:
    """Return a coroutine, as a decorator around an ASGI application does."""
    return None


def make_app(config: object = None) -> Site:
    """Be a factory."""
    return Site()


class CheckedApplicationTests(SynchronousTestCase):
    """`checked_application`."""

    def test_applications(self) -> None:
        """Every form of a WSGI application is returned unchanged."""
        applications: list[object] = [
            demo_app,
            Site(),
            Site().__call__,
            functools.partial(view, "kind"),
            Response,
            Factory,
            lambda *args: [],
            dict,
        ]
        for application in applications:
            self.assertIs(checked_application(application), application)

    def refusal(self, application: Any) -> str:
        """Return the message for an object that is no application.

        All ways to embed an application refuse it with the same message.
        """
        error = self.assertRaises(TypeError, checked_application, application)
        ways: list[Any] = [GreenSite, GreenWSGIResource]
        if not isinstance(application, str):
            ways.append(service)
        for way in ways:
            self.assertEqual(
                str(self.assertRaises(TypeError, way, application)), str(error)
            )
        return str(error)

    def test_not_callable(self) -> None:
        """For an object that is not callable, the message gives value and type."""
        self.assertEqual(
            self.refusal(5),
            "application=5 is of type int, which is not callable; give a callable that "
            "takes (environ, start_response)",
        )

    def test_name(self) -> None:
        """For a string, the message refers to the function that takes names."""
        self.assertEqual(
            self.refusal("module:app"),
            "application='module:app' is of type str, which is not callable; give a "
            "callable that takes (environ, start_response), or pass the name to "
            "txgreenwsgi.service()",
        )

    def test_path(self) -> None:
        """For a path, the message gives the name of its module."""
        for path, shown, name in [
            ("shop/wsgi.py:app", "'shop/wsgi.py:app'", "shop.wsgi:app"),
            ("/srv/shop.py", "'/srv/shop.py'", "shop"),
        ]:
            error = self.refusal(path)
            self.assertEqual(
                error,
                f"application={shown} is a path, not a callable; give a callable that "
                "takes (environ, start_response), or pass the name of its module to "
                f"txgreenwsgi.service(), such as {name!r}",
            )
        self.assertIn(
            "application=PurePosixPath('good/app') is a path, not a callable; ",
            self.refusal(PurePosixPath("good/app")),
        )

    def test_module(self) -> None:
        """For a module, the message gives the attribute to pass."""
        self.assertEqual(
            self.refusal(types.ModuleType("shop")),
            "application=<module 'shop'> is a module, not a callable; give the "
            "application in it, such as shop.application",
        )

    def test_class(self) -> None:
        """A class is refused unless its instances may be iterables."""
        self.assertEqual(
            self.refusal(Site),
            f"application={Site!r} is a class whose instances are not iterable; give "
            "an instance: Site(...)",
        )

    def test_asgi(self) -> None:
        """An ASGI application is recognized in each of its forms."""
        for application in (
            asgi,
            AsgiSite(),
            AsgiSite().__call__,
            functools.partial(asgi, None),
            synchronous_asgi,
        ):
            self.assertIn(
                " is an ASGI application (asynchronous), but this server speaks WSGI; "
                "give a WSGI application, or an adapter such as "
                "a2wsgi.ASGIMiddleware(application)",
                self.refusal(application),
            )

    def test_factory(self) -> None:
        """For a callable with other parameters, the message gives both."""
        self.assertRegex(
            self.refusal(make_app),
            r"\Aapplication=<function make_app at \w+> takes \(config: 'object' = "
            r"None\) -> 'Site', but a WSGI application takes \(environ, "
            r"start_response\); if it is a factory, give the application that it "
            r"returns\Z",
        )
