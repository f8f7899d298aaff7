"""`txgreenwsgi.service`: its arguments, and the order of patching and import."""

from __future__ import annotations

import gc
import os
import sys
import types
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from tests.server.logged import Logged
from txgreenwsgi import GreenSite, GreenWSGIResource, service
from txgreenwsgi._launch import service as service_module
from txgreenwsgi._launch.collecting import freezer_for
from txgreenwsgi._launch.find_app import AppNotFound
from txgreenwsgi._server import collection
from txgreenwsgi.green import patched
from txgreenwsgi.settings import SettingError
from txgreenwsgi.testing import MemoryReactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def application(environ: object, start_response: object) -> Iterable[bytes]:
    """Be an application."""
    cast("Callable[..., object]", start_response)("200 OK", [])
    return []


class ServiceTests(SynchronousTestCase):
    """Services that listen in memory."""

    def setUp(self) -> None:
        """Record what is patched, in place of patching this process."""
        self.reactor = MemoryReactorClock()
        self.modules: list[tuple[str, ...]] = []
        self.patch(service_module, "patch_modules", self.modules.append)
        self.patch(service_module, "patch_drivers", lambda names: None)
        # Most tests do not stop their services.
        self.patch(service_module, "freezer_for", lambda mode: None)
        self.addCleanup(sys.modules.pop, "tx_shop", None)

    def define(self, name: str, **contents: object) -> None:
        """Create an importable module."""
        sys.modules[name] = module = types.ModuleType(name)
        module.__dict__.update(contents)

    def test_object(self) -> None:
        """An application given as an object is served as it is."""
        made = service(application, ["tcp:1"], reactor=self.reactor, max_body=5)
        made.startService()
        self.assertIs(made.site.application, application)
        self.assertEqual(made.site.settings.max_body, 5)
        self.assertEqual(self.modules, [])

    def test_garbage_collection(self) -> None:
        """The application is frozen while the service runs, unless unchanged."""
        self.patch(service_module, "freezer_for", freezer_for)
        self.patch(gc, "collect", lambda: 0)  # takes 0.1 s in this process
        # Services of other tests that were not stopped.
        self.patch(collection, "started", set())
        gc.unfreeze()
        self.addCleanup(gc.unfreeze)
        made = service(
            application, ["tcp:1"], reactor=self.reactor, gc="unchanged", keep_alive=0
        )
        made.startService()
        self.assertEqual(gc.get_freeze_count(), 0)
        made.stopService()
        made = service(application, ["tcp:1"], reactor=self.reactor)
        self.assertEqual(gc.get_freeze_count(), 0)
        made.startService()
        self.assertGreater(gc.get_freeze_count(), 0)
        made.stopService()
        self.assertEqual(gc.get_freeze_count(), 0)
        error = self.assertRaises(ValueError, service, application, gc="off")
        self.assertIn("gc='off' is not a mode", str(error))
        self.assertIn("give 'freeze' or 'unchanged'", str(error))

    def test_name(self) -> None:
        """An application given by name is imported when the service starts."""
        made = service("tx_shop:application", ["tcp:1"], reactor=self.reactor)
        self.define("tx_shop", application=application)
        made.startService()
        self.assertIs(made.site.application, application)

    def test_patching_order(self) -> None:
        """The service patches when it starts, and imports the application after."""
        made = service(
            "tx_shop:make()", ["tcp:1"], reactor=self.reactor, patch="time,ssl"
        )
        seen: list[tuple[str, ...]] = []

        def make() -> Callable[..., object]:
            seen.extend(self.modules)
            return application

        self.define("tx_shop", make=make)
        made.privilegedStartService()
        self.assertEqual(self.modules, [])
        made.startService()
        self.assertEqual(seen, [("time", "ssl")])

    def test_forms_of_patch(self) -> None:
        """`patch` takes "all", "none", a list, or names with commas."""
        for patch, modules in [
            ("none", ()),
            (["time"], ("time",)),
            ("time, os", ("time", "os")),
        ]:
            self.modules.clear()
            service(application, [], reactor=self.reactor, patch=patch).startService()
            self.assertEqual(self.modules, [modules])

    def test_wrong_patch(self) -> None:
        """A module that cannot be patched is refused with those that can."""
        error = self.assertRaises(ValueError, service, application, patch=["sockets"])
        self.assertEqual(
            str(error),
            "patch=['sockets']: 'sockets' cannot be patched; give 'all', 'none', or "
            "some of time, os, thread, queue, select, selectors, socket, ssl, "
            "subprocess, signal",
        )

    def test_wrong_name(self) -> None:
        """A wrong name is refused at the call if possible, otherwise at the start."""
        self.assertRaises(AppNotFound, service, "shop.py:app")
        made = service("tx_nowhere:app", [], reactor=self.reactor)
        error = self.assertRaises(AppNotFound, made.startService)
        self.assertIn("app='tx_nowhere:app': there is no module", str(error))

    def test_endpoints(self) -> None:
        """A wrong endpoint string is refused at the call."""
        error = self.assertRaises(ValueError, service, application, ["8080"])
        self.assertEqual(
            str(error),
            "listen='8080' is not an endpoint string: give tcp:8080",
        )
        error = self.assertRaises(TypeError, service, application, "tcp:8080")
        self.assertIn("give ['tcp:8080']", str(error))
        port: Any = 8000
        error = self.assertRaises(TypeError, service, application, [port])
        self.assertEqual(
            str(error),
            "listen=[8000] is neither an endpoint nor an endpoint string: give "
            "'tcp:8000'",
        )

    def test_files_of_endpoints(self) -> None:
        """A key file need not exist before the start: twistd may change directory."""
        service(application, [f"ssl:443:privateKey={self.mktemp()}"])

    def test_bad_setting(self) -> None:
        """A setting that does not exist is refused."""
        wrong: dict[str, Any] = {"max_boddy": 1}
        self.assertRaises(SettingError, service, application, **wrong)

    def test_bad_type_of_patch(self) -> None:
        """A value of `patch` that is neither text nor an iterable is refused."""
        wrong: Any = True
        error = self.assertRaises(TypeError, service, application, patch=wrong)
        self.assertIn("patch=True: ", str(error))
        self.assertIn("; give 'all', 'none', or some of time, ", str(error))

    def test_access_log(self) -> None:
        """`access_log` names the file, which the started service opens."""
        path = self.mktemp()
        made = service(
            application,
            [],
            reactor=self.reactor,
            access_log=path,
            access_log_format="json",
        )
        self.assertFalse(os.path.exists(path))
        made.startService()
        self.assertTrue(os.path.exists(path))
        self.successResultOf(made.stopService())
        wrong: Any = "nonsense"
        self.assertRaises(
            ValueError, service, application, access_log="-", access_log_format=wrong
        )


class UnpatchedTests(SynchronousTestCase):
    """The log line of an embedded server whose standard library blocks."""

    def setUp(self) -> None:
        """Start in a process that has patched nothing."""
        self.patch(service_module, "freezer_for", lambda mode: None)
        self.logged = Logged(self)
        self.reactor = MemoryReactorClock()
        self.patch(service_module, "patch_modules", lambda names: None)
        self.forget()

    def forget(self) -> None:
        """Return to the state of a process that has chosen nothing."""
        self.patch(patched, "record", patched.PatchRecord())

    def warnings(self) -> list[str]:
        """Return the lines about patching since the last call."""
        return [line for line in self.logged.lines() if "not patched" in line]

    def test_service(self) -> None:
        """A service that patches nothing logs so once, with the remedy."""
        for count in (1, 0):
            made = service(application, ["tcp:1"], reactor=self.reactor)
            made.startService()
            made.site.doStart()
            lines = self.warnings()
            self.assertEqual(len(lines), count)

    def request_resource(self) -> None:
        """Send a request to a `GreenWSGIResource`."""
        reactor = MemoryReactor()
        site = Site(GreenWSGIResource(application, reactor=reactor), reactor=reactor)
        protocol = site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 4321))
        assert protocol is not None
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        reactor.settle()

    def test_remedy(self) -> None:
        """The line gives the calls that patch and that turn it off, for each server."""
        for start, words in [
            (
                service(application, ["tcp:1"], reactor=self.reactor).startService,
                ["service()", 'patch="all"', "monkey.patch_all()", 'patch="none"'],
            ),
            (
                GreenSite(application, reactor=self.reactor).doStart,
                ["given to GreenSite is", "monkey.patch_all()", "patch_all([])"],
            ),
            (
                self.request_resource,
                ["given to GreenWSGIResource is", "monkey.patch_all()"],
            ),
        ]:
            self.forget()
            start()
            [line] = self.warnings()
            for part in words:
                self.assertIn(part, line)
            self.assertEqual('patch="all"' in line, "service()" in line)

    def test_chosen(self) -> None:
        """A program that has chosen what to patch gets no such line."""
        for patch in ("all", "none", ["time"]):
            self.forget()
            made = service(application, ["tcp:1"], reactor=self.reactor, patch=patch)
            made.site.doStart()
            self.assertEqual(self.warnings(), [])

    def test_nothing_chosen(self) -> None:
        """`monkey.patch_all([])` patches nothing and counts as a choice."""
        from txgreenwsgi import monkey

        monkey.patch_all([])
        GreenSite(application, reactor=self.reactor).doStart()
        self.assertEqual(self.warnings(), [])
