"""The applications that can be run.

Knows their packages. It must never import them: the tests read this table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["APPLICATIONS", "Application"]


@dataclass(frozen=True)
class Application:
    """An application and what it needs.

    Attributes:
        title: its name in text.
        packages: requirements for pip; the first is the application itself.
        programs: programs that its client runs, with the Debian package of each.
        options: further options of `twistd greenwsgi`.
        module: the module with `prepare`, `make_app` and `drive`; by default that of
            this package with the application's name in the table.
    """

    title: str
    packages: tuple[str, ...]
    programs: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    module: str = ""


#: By the name of the module and of the command's argument.
APPLICATIONS: Final[Mapping[str, Application]] = {
    "wsgidav": Application("WsgiDAV", ("WsgiDAV", "lxml"), {"litmus": "litmus"}),
    "mercurial": Application("Mercurial", ("mercurial",)),
    "klaus": Application("klaus", ("klaus",), {"git": "git"}),
    "pypiserver": Application("pypiserver", ("pypiserver", "twine")),
    "radicale": Application("Radicale", ("Radicale", "caldav")),
    # Zope rewinds request bodies.
    "zope": Application("Zope", ("Zope",), options=("--buffer-input",)),
    # Trac imports pkg_resources, which later versions of setuptools lack.
    "trac": Application("Trac", ("Trac", "setuptools < 81")),
    "mlflow": Application("MLflow", ("mlflow",)),
    "wagtail": Application("Wagtail", ("wagtail", "requests")),
    "moto": Application("moto", ("moto[server,s3,sqs,dynamodb]", "boto3")),
}
