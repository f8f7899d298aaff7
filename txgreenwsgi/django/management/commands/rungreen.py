"""`manage.py rungreen`: `runserver` with each request in a greenlet.

It knows the options and messages of `runserver`. It must never know how a request is
served or how a process is watched.
"""

from __future__ import annotations

import errno
import os
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import django
from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError
from django.db import connections
from twisted.application.reactors import getReactorTypes

from txgreenwsgi._launch.patching import PATCHABLE, parse_patch, patch_drivers
from txgreenwsgi.django import launch, serving, watching

if apps.is_installed("django.contrib.staticfiles"):
    from django.contrib.staticfiles.management.commands import runserver
else:
    from django.core.management.commands import runserver

if TYPE_CHECKING:
    from argparse import ArgumentParser

__all__ = ["Command"]

_LISTEN_ERRORS = {
    errno.EACCES: "You don't have permission to access that port.",
    errno.EADDRINUSE: "That port is already in use.",
    errno.EADDRNOTAVAIL: "That IP address can't be assigned to.",
}


class Command(runserver.Command):
    """The command, with the address syntax and messages of `runserver`."""

    help = (
        "Starts a development server on Twisted that runs each request in a "
        "greenlet and reloads when a file changes."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the supported options of `runserver`, --reactor and --patch."""
        parser.add_argument(
            "addrport",
            nargs="?",
            help="Optional port number, or ipaddr:port, [ipv6]:port, name:port.",
        )
        parser.add_argument(
            "--ipv6", "-6", action="store_true", dest="use_ipv6", help="Use IPv6."
        )
        parser.add_argument(
            "--noreload",
            action="store_false",
            dest="use_reloader",
            help="Do not reload when a file changes.",
        )
        parser.add_argument(
            "--nostatic",
            action="store_false",
            dest="use_static_handler",
            help="Do not serve static files at STATIC_URL.",
        )
        parser.add_argument(
            "--insecure",
            action="store_true",
            dest="insecure_serving",
            help="Serve static files even if DEBUG is False.",
        )
        parser.add_argument(
            "--reactor",
            default="default",
            help="Twisted reactor to use: default, epoll, poll, asyncio etc.",
        )
        parser.add_argument(
            "--patch",
            default="all",
            help="Standard library modules to make cooperative: all, none, or a "
            f"comma-separated list of {','.join(PATCHABLE)}.",
        )

    def run(self, **options: Any) -> None:
        """Serve, or run the process that serves. Blocks while it serves."""
        if launch.is_launched():
            raise SystemExit(self.serve(options))
        self._require_valid(options)
        words = launch.command(options["reactor"], options["patch"])
        if options["use_reloader"]:
            raise SystemExit(watching.keep_running(words))
        self.stdout.flush()
        os.execv(words[0], words)

    @staticmethod
    def _require_valid(options: dict[str, Any]) -> None:
        names = sorted(each.shortName for each in getReactorTypes())
        if options["reactor"] not in names:
            raise CommandError(
                f"--reactor {options['reactor']!r}: unknown reactor; use one of "
                f"{', '.join(names)}"
            )
        try:
            parse_patch(options["patch"])
        except ValueError as error:
            raise CommandError(
                f"--patch {options['patch']!r}: {error}; use all, none, or a "
                f"comma-separated list of {', '.join(PATCHABLE)}"
            ) from None

    def serve(self, options: dict[str, Any]) -> int:
        """Run the checks, listen, print the address, serve; return the exit status."""
        if not options.get("skip_checks"):
            self.stdout.write("Performing system checks...\n\n")
            self.check(display_num_errors=True)
        self.check_migrations()
        connections.close_all()
        application = self.get_handler(**options)
        patch_drivers(parse_patch(options["patch"]))
        try:
            server = serving.Server(
                application, self.addr, int(self.port), self.use_ipv6
            )
            port = server.listen()
        except OSError as error:
            text = _LISTEN_ERRORS.get(error.errno or 0, str(error))
            self.stderr.write(f"Error: {text}")
            self.stderr.flush()
            # A file change cannot fix this, so do not wait for it.
            os._exit(1)
        if not launch.is_watched():
            self._print_address(port)
            return server.serve()
        watcher = os.getppid()
        watching.call_on_change(lambda: server.stop(launch.RESTART_STATUS))
        self._print_address(port)
        return server.serve(lambda: os.getppid() == watcher)

    def _print_address(self, port: int) -> None:
        host = f"[{self.addr}]" if self._raw_ipv6 else self.addr
        host = "0.0.0.0" if host == "0" else host
        now = datetime.now().strftime("%B %d, %Y - %X")
        self.stdout.write(
            f"{now}\n"
            f"Django version {django.get_version()}, using settings "
            f"{settings.SETTINGS_MODULE!r}\n"
            f"Starting development server at http://{host}:{port}/\n"
            "Each request runs in a greenlet of txgreenwsgi.\n"
            "Quit the server with CONTROL-C."
        )
        self.stdout.flush()
        sys.stdout.flush()
