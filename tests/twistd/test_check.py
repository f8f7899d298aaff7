"""`--check`: its findings for loaded modules and Django's settings."""

from __future__ import annotations

import sqlite3
import sys
import threading
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd.check import (
    BLOCKS,
    GREEN,
    OFFLOADED,
    UNKNOWN,
    WARNING,
    Finding,
    examine,
    report,
)
from txgreenwsgi._twistd.findings import IN_C, ON_SOCKETS
from txgreenwsgi.green import patched

#: An extension module that opens connections.
NATIVE = getattr(find_spec("uvloop.loop"), "origin", None)


class CheckTestCase(SynchronousTestCase):
    """Tests with a set of loaded modules of their own."""

    def setUp(self) -> None:
        """Start with only the standard library and this package loaded."""
        kept = {
            name: module
            for name, module in sys.modules.items()
            if name.partition(".")[0] in (*sys.stdlib_module_names, "txgreenwsgi")
            and name not in ("sqlite3", "txgreenwsgi.green.sqlite3")
        }
        self.patch(sys, "modules", kept)
        self.patch(patched, "record", patched.PatchRecord())
        self.patched = patched.record.modules
        self.load(
            "txgreenwsgi.monkey",
            early_importers=dict,
            early_objects=list,
            original=lambda module, name: getattr(sys.modules[module], name),
        )

    def load(self, name: str, **contents: object) -> ModuleType:
        """Load a module with these contents."""
        module = ModuleType(name)
        module.__dict__.update(contents)
        sys.modules[name] = module
        return module

    def found(self, *offload: str) -> dict[str, Finding]:
        """Return the findings by name."""
        return {finding.name: finding for finding in examine(offload)}

    def says(self, name: str, verdict: str, remedy: str = "", *offload: str) -> None:
        """Assert the verdict for `name`, and that a bad one has a remedy."""
        finding = self.found(*offload)[name]
        self.assertEqual(finding.verdict, verdict, finding)
        self.assertIn(remedy, finding.remedy)
        if verdict in (BLOCKS, WARNING):
            self.assertTrue(finding.remedy, f"{name} has no remedy")


class DriverTests(CheckTestCase):
    """Drivers and C extensions."""

    def test_nothing(self) -> None:
        """Without known drivers, there are no findings."""
        self.assertEqual(self.found(), {})

    def test_on_sockets(self) -> None:
        """A driver in Python is green if sockets are patched; otherwise it blocks."""
        for name in ON_SOCKETS:
            self.load(name)
            self.says(name, BLOCKS, "--patch all")
        self.patched.add("socket")
        for name in ON_SOCKETS:
            self.says(name, GREEN)

    def test_in_c(self) -> None:
        """A driver that waits in C blocks, patched or not, and has a remedy."""
        self.patched.update(("socket", "select", "threading"))
        for name in IN_C:
            self.load(name)
            self.says(name, BLOCKS)
        self.assertEqual(len(self.found()), len(IN_C))

    def test_offloaded(self) -> None:
        """For an off-loaded driver, the finding names the functions."""
        self.load("pyodbc")
        self.says("pyodbc", OFFLOADED, "only pyodbc.connect", "pyodbc.connect")
        self.says("pyodbc", BLOCKS, "", "pyodbcish.connect")
        self.load("sqlite3")
        self.says("sqlite3", OFFLOADED, "sqlite3.connect", "sqlite3.connect")
        self.load("redis")
        self.says("redis", OFFLOADED, "redis.Redis.get", "redis.Redis.get")
        self.patched.add("socket")
        self.says("redis", GREEN, "", "redis.Redis.get")

    def test_pymysql_in_disguise(self) -> None:
        """PyMySQL installed as MySQLdb is reported as PyMySQL."""
        self.patched.add("socket")
        sys.modules["MySQLdb"] = self.load("pymysql")
        self.assertEqual(list(self.found()), ["pymysql"])

    def test_psycopg2(self) -> None:
        """psycopg2 is green only with its wait callback."""
        callbacks: list[object] = [None]
        self.load("psycopg2")
        self.load("psycopg2.extensions", get_wait_callback=lambda: callbacks[-1])
        self.patched.update(("socket", "select"))
        self.says("psycopg2", BLOCKS, "patch_psycopg2()")
        callbacks.append(print)
        self.says("psycopg2", GREEN)

    def test_psycopg(self) -> None:
        """Psycopg 3 is green if it waits by our function or a patched `select`."""

        def wait_c() -> None:
            """Stand for the function that waits in C."""

        def wait_poll() -> None:
            """Stand for the function that waits by `select.poll`."""

        def ours() -> None:
            """Stand for the function of this package."""

        ours.__module__ = "txgreenwsgi.green.drivers"
        self.load("psycopg")
        self.load("psycopg.waiting", wait=wait_c)
        self.patched.add("select")
        self.says("psycopg", BLOCKS, "PSYCOPG_WAIT_FUNC")
        self.load("psycopg.waiting", wait=wait_poll)
        self.says("psycopg", GREEN)
        self.patched.clear()
        self.says("psycopg", BLOCKS, "--patch all")
        self.load("psycopg.waiting", wait=ours)
        self.says("psycopg", GREEN)

    def test_uvloop(self) -> None:
        """Uvloop blocks, except as the event loop of the reactor."""
        loop = type("Loop", (), {"__module__": "uvloop"})()
        self.load("uvloop")
        self.says("uvloop", BLOCKS, "uvloop.install()")
        self.load("twisted.internet.reactor", _asyncioEventloop=object())
        self.says("uvloop", BLOCKS)
        self.load("twisted.internet.reactor", _asyncioEventloop=loop)
        self.says("uvloop", GREEN)

    def test_unknown(self) -> None:
        """An unknown package that connects in C may block; off-loading it helps."""
        self.load("shopdriver._native", __file__=NATIVE)
        self.says("shopdriver", UNKNOWN, "--offload")
        self.says("shopdriver", OFFLOADED, "shopdriver.get", "shopdriver.get")
        self.assertEqual(len(self.found()), 1)
        text, status = report(examine())
        self.assertEqual(status, 0)
        self.assertIn("0 of 1 would block the reactor, 1 may", text)

    def test_threads_for_auto(self) -> None:
        """The report says which findings `--threads-for auto` solves."""
        self.load("requests")
        self.load("grpc")
        self.load("shopdriver._native", __file__=NATIVE)
        self.load("gevent.monkey", saved={"socket": {}})
        text, status = report(examine())
        self.assertEqual(status, 1)
        auto = "--threads-for auto, the default"
        for name in ("requests", "grpc", "shopdriver"):
            finding = text.partition(f" {name}\n")[2]
            self.assertIn(auto, "".join(finding.splitlines(keepends=True)[:2]))
        self.assertEqual(text.count(auto), 3)
        self.assertIn(
            "3 of 4 would block the reactor, 1 may; --threads-for auto solves 3 of "
            "these",
            text,
        )

    def test_known_extensions(self) -> None:
        """An extension module of a known or harmless package is not unknown."""
        for name in ("cryptography.native", "_duckdb", "psycopg_binary.pq"):
            self.load(name, __file__=NATIVE)
        self.assertEqual(self.found(), {})

    def test_oracledb(self) -> None:
        """Oracledb is green in its thin mode with patched sockets."""
        self.patched.add("socket")
        self.load("oracledb", is_thin_mode=lambda: False)
        self.says("oracledb", BLOCKS, "init_oracle_client")
        self.load("oracledb", is_thin_mode=lambda: True)
        self.says("oracledb", GREEN)
        self.patched.clear()
        self.says("oracledb", BLOCKS, "--patch all")

    def test_sqlite3(self) -> None:
        """sqlite3 blocks if a module uses it directly."""
        sys.modules["sqlite3"] = sqlite3
        self.says("sqlite3", BLOCKS, "import txgreenwsgi.green.sqlite3 instead")
        self.load("shop.orders", db=sqlite3)
        self.load("shop.stock", connect=sqlite3.connect)
        self.says("sqlite3", BLOCKS, "(in shop.orders, shop.stock)")
        self.load("txgreenwsgi.green.sqlite3", _standard=sqlite3)
        self.says("sqlite3", BLOCKS, "(in shop.orders, shop.stock)")
        del sys.modules["shop.orders"], sys.modules["shop.stock"]
        self.says("sqlite3", GREEN, "txgreenwsgi.green.sqlite3")

    def test_sqlite3_heavy(self) -> None:
        """With `--offload heavy`, sqlite3 is off-loaded for all its users."""
        sys.modules["sqlite3"] = sqlite3
        self.load("shop.orders", db=sqlite3)
        self.says("sqlite3", BLOCKS, "--offload heavy")
        self.patched.add("heavy")
        self.says("sqlite3", OFFLOADED, "--offload heavy", "heavy")

    def test_rivals(self) -> None:
        """Another library that patched the standard library is reported."""
        for name in ("gevent", "eventlet"):
            self.load(f"{name}.monkey", saved={})
            self.assertEqual(self.found(), {})
            self.load(f"{name}.monkey", saved={"socket": {}})
            self.says(name, BLOCKS, "it has patched the standard library")
            del sys.modules[f"{name}.monkey"]

    def test_too_early(self) -> None:
        """A module that bound blocking functions is reported with their names."""
        monkey: Any = sys.modules["txgreenwsgi.monkey"]
        monkey.early_importers = lambda: {"shop.mail": ["sleep", "socket"]}
        self.says("shop.mail", BLOCKS, "sleep, socket")

    def test_early_objects(self) -> None:
        """An object created before patching is reported with its kind."""
        monkey: Any = sys.modules["txgreenwsgi.monkey"]
        monkey.early_objects = lambda: [
            SimpleNamespace(name="shop.lock", kind="Lock"),
            SimpleNamespace(name="shop.state", kind="local"),
        ]
        self.says("shop.lock", WARNING, "a Lock created before the library")
        self.says("shop.lock", WARNING, "blocks all others")
        self.says("shop.state", WARNING, "all requests share it")

    def test_thread_locals(self) -> None:
        """A thread-local shared by all requests is reported; a contextvar is not."""
        from contextvars import ContextVar

        class Subclass(threading.local):
            """A subclass of a thread-local."""

        self.load(
            "shop.state",
            current=threading.local(),
            other=Subclass(),
            context=ContextVar("context"),
        )
        self.says("shop.state.current", WARNING, "contextvar")
        self.says("shop.state.other", WARNING, "--patch all")
        self.assertEqual(len(self.found()), 2)


class DjangoTests(CheckTestCase):
    """The settings of a Django project."""

    def setUp(self) -> None:
        """Load a project as `startproject` creates it, without a database."""
        super().setUp()
        self.settings = SimpleNamespace(
            configured=True,
            DATABASES={},
            CACHES={
                "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
            },
            MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
            SESSION_ENGINE="django.contrib.sessions.backends.db",
            EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
        )
        self.load("django.conf", settings=self.settings)
        self.patched.update(("socket", "select", "threading"))

    def engine(self, engine: str, **more: object) -> None:
        """Configure one database."""
        self.settings.DATABASES = {"default": {"ENGINE": engine, **more}}

    def test_not_configured(self) -> None:
        """Without configured settings, Django is ignored."""
        self.settings.configured = False
        self.engine("django.db.backends.sqlite3")
        self.assertEqual(self.found(), {})

    def test_engines(self) -> None:
        """Each ENGINE has its verdict; for a blocking one, the remedy names another."""
        for engine, verdict, remedy in (
            ("txgreenwsgi.django.backends.postgresql", GREEN, ""),
            ("txgreenwsgi.django.backends.mysql", GREEN, ""),
            ("txgreenwsgi.django.backends.sqlite3", GREEN, ""),
            ("django.db.backends.postgresql", GREEN, ""),
            ("django.db.backends.sqlite3", BLOCKS, "txgreenwsgi.django.backends."),
            ("django.db.backends.mysql", BLOCKS, "txgreenwsgi.django.backends.mysql"),
            ("django.db.backends.oracle", WARNING, "thin mode"),
            ("django.db.backends.dummy", GREEN, "no database"),
            ("mssql", WARNING, "'mssql' is unknown"),
        ):
            self.engine(engine)
            self.says("DATABASES['default']['ENGINE']", verdict, remedy)

    def test_sqlite3_heavy(self) -> None:
        """With `--offload heavy`, Django's own engine for SQLite is off-loaded."""
        self.engine("django.db.backends.sqlite3")
        self.says("DATABASES['default']['ENGINE']", BLOCKS, "--offload heavy")
        self.patched.add("heavy")
        self.says("DATABASES['default']['ENGINE']", OFFLOADED, "--offload heavy")

    def test_sockets_that_block(self) -> None:
        """Without patched sockets, only our engine for SQLite is green."""
        self.patched.discard("socket")
        for engine in (
            "txgreenwsgi.django.backends.postgresql",
            "txgreenwsgi.django.backends.mysql",
            "django.db.backends.postgresql",
        ):
            self.engine(engine)
            self.says("DATABASES['default']['ENGINE']", BLOCKS, "--patch socket")
        self.engine("txgreenwsgi.django.backends.sqlite3")
        self.says("DATABASES['default']['ENGINE']", GREEN)

    def test_pymysql_as_mysqldb(self) -> None:
        """Django's MySQL backend is green with PyMySQL."""
        self.engine("django.db.backends.mysql")
        sys.modules["MySQLdb"] = self.load("pymysql")
        self.says("DATABASES['default']['ENGINE']", GREEN)

    def test_connections_that_are_kept(self) -> None:
        """CONN_MAX_AGE without a pool is reported, with an engine that has one."""
        name = "DATABASES['default']['CONN_MAX_AGE']"
        for age in (60, None):
            self.engine("django.db.backends.postgresql", CONN_MAX_AGE=age)
            self.says(name, WARNING, "txgreenwsgi.django.backends.postgresql")
        self.engine("mssql", CONN_MAX_AGE=60)
        self.says(name, WARNING, "a pool")
        for engine, age in (
            ("django.db.backends.postgresql", 0),
            ("txgreenwsgi.django.backends.postgresql", 60),
        ):
            self.engine(engine, CONN_MAX_AGE=age)
            self.assertNotIn(name, self.found())

    def test_connections_that_are_shared(self) -> None:
        """Connections are per request if threads are patched or isolated."""

        class Isolated:
            """Stand for the thread-local of `txgreenwsgi.isolation`."""

        Isolated.__module__ = "txgreenwsgi.isolation"
        self.patched.discard("threading")
        for module, name in (
            ("django.db", "connections"),
            ("django.core.cache", "caches"),
        ):
            handler = SimpleNamespace(_connections=threading.local())
            self.load(module, **{name: handler})
            self.says(f"{module}.{name}", BLOCKS, "--patch all")
            handler._connections = Isolated()
            self.says(f"{module}.{name}", GREEN)
            handler._connections = threading.local()
            self.patched.add("threading")
            self.says(f"{module}.{name}", GREEN)
            self.patched.discard("threading")

    def test_caches(self) -> None:
        """Each cache backend that waits has its verdict."""
        name = "CACHES['default']['BACKEND']"
        for kind, verdict, remedy in (
            ("memcached.PyMemcacheCache", GREEN, ""),
            ("redis.RedisCache", GREEN, ""),
            ("memcached.PyLibMCCache", BLOCKS, "PyMemcacheCache"),
            ("filebased.FileBasedCache", WARNING, "Redis"),
        ):
            backend = f"django.core.cache.backends.{kind}"
            self.settings.CACHES = {"default": {"BACKEND": backend}}
            self.says(name, verdict, remedy)
        self.patched.discard("socket")
        backend = "django.core.cache.backends.redis.RedisCache"
        self.settings.CACHES = {"default": {"BACKEND": backend}}
        self.says(name, BLOCKS, "--patch socket")

    def test_files_and_mail(self) -> None:
        """Sessions in files are reported, and mail if sockets block."""
        self.assertEqual(self.found(), {})
        self.settings.SESSION_ENGINE = "django.contrib.sessions.backends.file"
        self.says("SESSION_ENGINE", WARNING, "database")
        self.settings.MIDDLEWARE = []
        self.assertEqual(self.found(), {})
        self.patched.discard("socket")
        self.says("EMAIL_BACKEND", WARNING, "--patch socket")


class ReportTests(SynchronousTestCase):
    """The findings as text."""

    def test_exit_status(self) -> None:
        """The status is 1 if a driver blocks; every remedy is shown."""
        text, status = report([Finding("x", BLOCKS, "do y"), Finding("z", GREEN)])
        self.assertEqual(status, 1)
        self.assertIn("do y", text)
        self.assertIn("1 of 2", text)
        for findings in (
            [],
            [Finding("z", GREEN)],
            [Finding("w", WARNING, "v"), Finding("o", OFFLOADED, "only o.p")],
        ):
            self.assertEqual(report(findings)[1], 0)

    def test_order(self) -> None:
        """Blocking drivers come first, then warnings."""
        order = [found.verdict for found in examine()]
        kinds = (BLOCKS, WARNING, UNKNOWN, OFFLOADED, GREEN)
        ranks = [kinds.index(what) for what in order]
        self.assertEqual(ranks, sorted(ranks))
