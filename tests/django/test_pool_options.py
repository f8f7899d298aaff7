"""OPTIONS["green_pool"]: valid values, and messages for invalid ones."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.django.apps import check_pools
from txgreenwsgi.django.pool_options import PoolOptions

from . import project

assert project.FOLDER.is_dir(), "Django is set up by it"


class PoolOptionTests(SynchronousTestCase):
    """`PoolOptions.of`."""

    def test_default(self) -> None:
        """The default is a pool of ten connections."""
        self.assertEqual(
            PoolOptions.of("default", {}), PoolOptions(10, 30.0, 3600.0, 600.0)
        )
        self.assertEqual(PoolOptions.of("default", {"green_pool": True}), PoolOptions())

    def test_some(self) -> None:
        """Given options replace the defaults; None means no limit."""
        given = {"max_size": 3, "wait_timeout": None, "max_age": 60}
        self.assertEqual(
            PoolOptions.of("default", {"green_pool": given}),
            PoolOptions(3, None, 60, 600.0),
        )

    def test_none(self) -> None:
        """False and None disable the pool, also with Django's own pool."""
        for given in (False, None):
            self.assertIsNone(
                PoolOptions.of("default", {"green_pool": given, "pool": True})
            )

    def test_bad(self) -> None:
        """The message has the setting, its value and the valid values."""
        cases: dict[str, tuple[Any, str]] = {
            "a number": (5, "is 5: give a dictionary with some of the keys max_size,"),
            "a key": ({"size": 5}, "has the unknown key 'size': use max_size, wait_t"),
            "zero": ({"max_size": 0}, "['max_size'] is 0: give a whole number of"),
            "a text": ({"max_size": "9"}, "['max_size'] is '9': give a whole"),
            "a truth": ({"max_size": True}, "['max_size'] is True: give a whole"),
            "no size": ({"max_size": None}, "['max_size'] is None: give a whole"),
            "negative": ({"max_age": -1}, "['max_age'] is -1: give a number of sec"),
            "no number": ({"max_idle": "1h"}, "['max_idle'] is '1h': give a number"),
            "NaN": ({"wait_timeout": float("nan")}, "['wait_timeout'] is nan: give"),
        }
        for case, (given, text) in cases.items():
            error = self.assertRaises(
                ImproperlyConfigured, PoolOptions.of, "one", {"green_pool": given}
            )
            self.assertIn("DATABASES['one']['OPTIONS']['green_pool']", str(error))
            self.assertIn(text, str(error), case)

    def test_two_pools(self) -> None:
        """Both Django's pool and this one raise ImproperlyConfigured."""
        error = self.assertRaises(
            ImproperlyConfigured, PoolOptions.of, "one", {"pool": True}
        )
        self.assertIn("'green_pool': False", str(error))


class CheckTests(SynchronousTestCase):
    """`manage.py check`."""

    def check(self, **database: Any) -> list[str]:
        """Return the messages for a database with these settings."""
        self.patch(settings, "DATABASES", {"default": database})
        return [each.msg for each in check_pools(apps.get_app_configs())]

    def test_good(self) -> None:
        """Valid settings produce no message."""
        engine = "txgreenwsgi.django.backends.postgresql"
        self.assertEqual(self.check(ENGINE=engine), [])
        self.assertEqual(
            self.check(ENGINE=engine, OPTIONS={"green_pool": {"max_size": 5}}), []
        )

    def test_bad_option(self) -> None:
        """An invalid option is reported without connecting."""
        (text,) = self.check(
            ENGINE="txgreenwsgi.django.backends.mysql",
            OPTIONS={"green_pool": {"max": 5}},
        )
        self.assertIn("has the unknown key 'max'", text)

    def test_other_engine(self) -> None:
        """`green_pool` with a backend that does not support it is reported."""
        (text,) = self.check(
            ENGINE="django.db.backends.postgresql", OPTIONS={"green_pool": {}}
        )
        self.assertIn("'django.db.backends.postgresql' does not support", text)
