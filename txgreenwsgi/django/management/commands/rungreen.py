"""`manage.py rungreen`: `runserver`, each request in a greenlet.

It knows `runserver`'s words and messages. It must never know how a request is
served, nor how a process is watched.
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

_REFUSALS = {
    errno.EACCES: "You don't have permission to access that port.",
    errno.EADDRINUSE: "That port is already in use.",
    errno.EADDRNOTAVAIL: "That IP address can't be assigned to.",
}


class Command(runserver.Command):
    """The command; what it says and takes for an address is `runserver`'s."""

    help = (
        "Starts a development server on Twisted that runs each request in a "
        "greenlet, and starts anew when a file changes."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Those of `runserver` that make sense here, and our own."""
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
            help="Do not start anew when a file changes.",
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
            help="Twisted's reactor: default, epoll, poll, asyncio ...",
        )
        parser.add_argument(
            "--patch",
            default="all",
            help="What of the standard library waits by parking: all, none, or some "
            f"of {','.join(PATCHABLE)}.",
        )

    def run(self, **options: Any) -> None:
        """Serve, or start the process that does. Does not return while it serves."""
        if launch.is_launched():
            raise SystemExit(self.serve(options))
        self._judge(options)
        words = launch.command(options["reactor"], options["patch"])
        if options["use_reloader"]:
            raise SystemExit(watching.keep_running(words))
        self.stdout.flush()
        os.execv(words[0], words)

    @staticmethod
    def _judge(options: dict[str, Any]) -> None:
        names = sorted(each.shortName for each in getReactorTypes())
        if options["reactor"] not in names:
            raise CommandError(
                f"--reactor {options['reactor']!r}: there is no such reactor; give "
                f"one of {', '.join(names)}"
            )
        try:
            parse_patch(options["patch"])
        except ValueError as error:
            raise CommandError(
                f"--patch {options['patch']!r}: {error}; give all, none, or some of "
                f"{', '.join(PATCHABLE)} with commas between them"
            ) from None

    def serve(self, options: dict[str, Any]) -> int:
        """Check, listen, tell, serve; the exit status."""
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
            text = _REFUSALS.get(error.errno or 0, str(error))
            self.stderr.write(f"Error: {text}")
            self.stderr.flush()
            # No change of a file would mend that.
            os._exit(1)
        if not launch.is_watched():
            self._tell(port)
            return server.serve()
        watcher = os.getppid()
        watching.call_on_change(lambda: server.stop(launch.AGAIN))
        self._tell(port)
        return server.serve(lambda: os.getppid() == watcher)

    def _tell(self, port: int) -> None:
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
