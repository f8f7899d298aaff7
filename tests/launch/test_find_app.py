"""`--app`: what can be said, and what is answered to what cannot."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
import traceback

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd.find_app import AppNotFound, find_app

SITE = """
    from functools import partial, wraps

    def application(environ, start_response): return ["application"]
    def app(environ, start_response): return ["app"]
    def answer(kind, environ, start_response): return [kind]

    bound = partial(answer, "partial")

    class Site:
        def __init__(self, name="site"):
            self.name = name
            self.nested = bound
        def __call__(self, environ, start_response): return [self.name]
        def view(self, environ, start_response): return ["view of " + self.name]

    site = Site()

    class Iterable:
        "The class that PEP 3333 shows: its instances are the iterables."
        def __init__(self, environ, start_response): pass
        def __iter__(self): return iter(["class"])

    def make(name="made", *, loud=False):
        return Site(name.upper() if loud else name)

    def make_from(config): return site

    def request_view(request): return "text"

    @wraps(request_view)
    def decorated(environ, start_response): return ["decorated"]

    def breaks(): raise KeyError("inside of the factory")

    class Odd:
        @property
        def broken(self): return {}["inside of the property"]
        @property
        def missing(self): return self.nonesuch

    odd = Odd()

    async def asynchronous(scope, receive, send): pass
    async def generator(scope, receive, send): yield
    class Asgi:
        async def __call__(self, scope, receive, send): pass
    asgi = Asgi()
    number = 5
"""


MAKE_DICT = "findme.builtin:make(a=1)"


class FindAppTests(SynchronousTestCase):
    """Specs against modules in a directory that is on the path."""

    def setUp(self) -> None:
        """A directory with a package `findme`, which is imported anew."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.patch(sys, "path", [self.directory, *sys.path])
        # Else a module written twice in a second may be the first one again.
        self.patch(sys, "dont_write_bytecode", True)
        self.addCleanup(self.forget)
        self.module("findme/__init__.py", "here = True")
        self.module("findme/site.py", SITE)

    def forget(self) -> None:
        """Let the next test import its own modules."""
        for name in list(sys.modules):
            if name.split(".")[0].startswith("findme"):
                del sys.modules[name]

    def module(self, path: str, source: str) -> None:
        """Write a module."""
        whole = os.path.join(self.directory, path)
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        with open(whole, "w") as file:
            file.write(textwrap.dedent(source))
        importlib.invalidate_caches()

    def answer(self, spec: str) -> str:
        """What the application of that spec answers."""
        [block] = find_app(spec)({}, lambda *_args: lambda _block: None)
        return str(block)

    def refusal(self, spec: str) -> str:
        """What is said of a spec; it always begins with the spec."""
        message = str(self.assertRaises(AppNotFound, find_app, spec))
        beginning = f"--app {spec!r}: "
        self.assertEqual(message[: len(beginning)], beginning)
        return message[len(beginning) :].replace(self.directory, "DIR")

    def test_specs(self) -> None:
        """An application is found by each way of naming it."""
        for spec, answer in {
            "findme.site:application": "application",
            "findme.site:app": "app",
            "findme.site:bound": "partial",
            "findme.site:site": "site",
            "findme.site:site.view": "view of site",
            "findme.site:site.nested": "partial",
            "findme.site:Iterable": "class",
            "findme.site:decorated": "decorated",
            "findme.site:make()": "made",
            "findme.site:make('other')": "other",
            "findme.site:make('other', loud=True)": "OTHER",
            "findme.site:make(name='other')": "other",
            "findme.site:Site()": "site",
            "findme.site:Site('x')": "x",
            "findme.site.app": "app",
            "findme.site.site.view": "view of site",
            "findme.site": "application",
        }.items():
            self.assertEqual(self.answer(spec), answer, spec)

    def test_module_with_app(self) -> None:
        """A module alone stands for its `application`, or else its `app`."""
        self.module("findme/flask.py", "def app(e, s): return ['flask']")
        self.assertEqual(self.answer("findme.flask"), "flask")

    def test_no_such_module(self) -> None:
        """A misspelled module is told apart from everything else."""
        self.assertEqual(
            self.refusal("findma:app"),
            "there is no module findma (looked in DIR first); did you mean findme?; "
            "is --chdir needed?",
        )
        self.assertEqual(
            self.refusal("zzz"),
            "there is no module zzz (looked in DIR first); is --chdir needed?",
        )

    def test_no_such_module_in_package(self) -> None:
        """The modules of the package that was found are offered."""
        self.assertEqual(
            self.refusal("findme.sites:app"),
            "there is no module findme.sites (package findme is in DIR/findme); did "
            "you mean site?",
        )

    def test_no_package(self) -> None:
        """A module is told apart from a package."""
        self.assertEqual(
            self.refusal("findme.site.app:app"),
            "there is no module findme.site.app: findme.site is a module, not a "
            "package",
        )

    def test_no_such_name(self) -> None:
        """A misspelled name is refused with the nearest there is."""
        self.assertEqual(
            self.refusal("findme.site:aplication"),
            "module findme.site has no aplication; did you mean application?",
        )
        self.assertEqual(
            self.refusal("findme.site:site.veiw"),
            "site of module findme.site has no veiw; did you mean view?",
        )
        self.assertEqual(
            self.refusal("findme.site.aplication"),
            "module findme.site has no aplication; did you mean application?",
        )

    def test_no_such_name_near_none(self) -> None:
        """A name like no other is refused with what may be meant."""
        self.module("findme/few.py", "import os\ndef make(): pass\nclass Web: pass\n")
        self.assertEqual(
            self.refusal("findme.few:zzzzzz"),
            "module findme.few has no zzzzzz; it has Web, make",
        )

    def test_nothing_to_choose(self) -> None:
        """A module with neither of the two names is refused with what it has."""
        self.module("findme/few.py", "def make(): pass\n")
        self.assertEqual(
            self.refusal("findme.few"),
            "module findme.few has neither application nor app; it has make; say "
            "which name is meant: --app findme.few:NAME",
        )
        self.module("findme/none.py", "")
        self.assertEqual(
            self.refusal("findme.none"),
            "module findme.none has neither application nor app; say which name is "
            "meant: --app findme.none:NAME",
        )

    def test_files(self) -> None:
        """The name of a file is refused with the module that is meant."""
        self.assertEqual(
            self.refusal("./findme/site.py:app"),
            "'./findme/site.py' is a file; give the module's name, as Python imports "
            "it: --app findme.site:app, with --chdir if it is in another directory",
        )
        self.assertIn("--app hello:app,", self.refusal("hello.py"))

    def test_not_a_spec(self) -> None:
        """What is not the form of a spec is refused with an example of one."""
        for spec in (":app", "a b:app", "a..b:app", "5:app", "-:app"):
            self.assertIn(
                "is not the name of a module; give package.module:name, for instance "
                "--app myproject.wsgi:application",
                self.refusal(spec),
            )
        for expression in (
            "",
            "app[0]",
            "make(site)",
            "make(*[1])",
            "make(**{})",
            "make()()",
            "app; app",
            "1",
            "lambda: 1",
        ):
            self.assertEqual(
                self.refusal(f"findme.site:{expression}"),
                f"{expression!r} after the colon is neither a name nor a call of one "
                "with literal arguments; give name, object.attribute, factory() or "
                "factory('text', debug=True)",
            )

    def test_not_callable(self) -> None:
        """What cannot be called is refused, and said what it is."""
        self.assertEqual(
            self.refusal("findme.site:number"),
            "that is 5 of type int, which cannot be called; a WSGI application is a "
            "callable that takes environ and start_response",
        )
        self.assertEqual(
            self.refusal("findme.site:number()"),
            "number cannot be called, it is 5 of type int; leave the parentheses out",
        )
        self.forget()
        self.module("findme/__init__.py", "from findme import site as app")
        self.assertIn(
            "that is the module findme.site, which cannot be called",
            self.refusal("findme:app"),
        )

    def test_class(self) -> None:
        """A class whose instance is meant is refused with how to make one."""
        self.assertEqual(
            self.refusal("findme.site:Site"),
            "that is the class Site; an instance of it is meant, perhaps: --app "
            "'findme.site:Site()'",
        )
        self.assertIn("--app 'findme.site:Site()'", self.refusal("findme.site.Site"))

    def test_factory(self) -> None:
        """A factory that is not called is refused with how to call it."""
        self.assertEqual(
            self.refusal("findme.site:make_from"),
            "that takes (config), while a WSGI application takes (environ, "
            "start_response); if it makes an application, call it: --app "
            "'findme.site:make_from()'",
        )
        self.assertEqual(
            self.refusal("findme.site:make_from()"),
            "make_from cannot be called so (missing a required argument: 'config'); "
            "it takes (config)",
        )

    def test_asgi(self) -> None:
        """An ASGI application is told apart, in each of its forms."""
        for name in ("asynchronous", "generator", "asgi", "Asgi()"):
            self.assertEqual(
                self.refusal(f"findme.site:{name}"),
                "that is asynchronous, an ASGI application perhaps, and this server "
                "speaks WSGI; give a WSGI application, or wrap this one by an adapter "
                "from ASGI to WSGI",
            )

    def test_built_in(self) -> None:
        """A callable that does not tell what it takes is believed."""
        self.module("findme/builtin.py", "app = dict")
        self.assertIs(find_app("findme.builtin:app"), dict)

    def test_built_in_factory(self) -> None:
        """Nor is a factory of C's asked what it takes."""
        self.module("findme/builtin.py", "make = dict")
        self.assertIn("that is {'a': 1} of type dict", self.refusal(MAKE_DICT))

    def assert_shows(self, spec: str, error: type[BaseException], line: str) -> None:
        """The user's own error leaves with the line that it happened in."""
        raised = self.assertRaises(error, find_app, spec)
        self.assertNotIsInstance(raised, AppNotFound)
        self.assertIn(line, "".join(traceback.format_exception(raised)))

    def test_errors_of_the_module(self) -> None:
        """An error inside the user's module is shown where it happened."""
        for source, error in {
            "1 / 0": ZeroDivisionError,
            "import findme_dependency": ModuleNotFoundError,
            "from findme import nonesuch": ImportError,
            "import os; os.nonesuch": AttributeError,
            "def f(:": SyntaxError,
            "raise KeyboardInterrupt": KeyboardInterrupt,
        }.items():
            self.forget()
            self.module("findme/broken.py", source)
            for spec in ("findme.broken:app", "findme.broken", "findme.broken.app"):
                self.assert_shows(spec, error, source)

    def test_dependency_of_the_same_name(self) -> None:
        """A package that cannot import its own part is not "not found"."""
        self.module("findme/__init__.py", "import findme.part")
        self.assert_shows("findme.part:app", ModuleNotFoundError, "import findme.part")
        self.forget()
        self.assert_shows("findme:app", ModuleNotFoundError, "import findme.part")

    def test_errors_of_the_name(self) -> None:
        """An error while a name is looked up is shown where it happened."""
        self.assert_shows("findme.site:breaks()", KeyError, "raise KeyError")
        self.assert_shows("findme.site:odd.broken", KeyError, "def broken")
        self.assert_shows("findme.site:odd.missing", AttributeError, "def missing")

    def test_module_that_exits(self) -> None:
        """A script that ends the program is told apart, with its traceback."""
        self.module("findme/script.py", "import sys\nsys.exit(0)\n")
        error = self.assertRaises(AppNotFound, find_app, "findme.script:app")
        self.assertEqual(
            str(error),
            "--app 'findme.script:app': module findme.script ends the program while "
            "it is imported (SystemExit: 0); put what it runs under `if __name__ == "
            "'__main__':`",
        )
        self.assertIn("sys.exit(0)", "".join(traceback.format_exception(error)))
