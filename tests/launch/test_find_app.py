"""Applications by name: the accepted forms, and the message for each mistake."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
import traceback

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._launch.find_app import AppNotFound, check_spec, find_app

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
        "The class of PEP 3333: its instances are the iterables."
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
    """Names of applications, against modules in a directory on the path."""

    def setUp(self) -> None:
        """Create a directory with a package `findme`, not yet imported."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.patch(sys, "path", [self.directory, *sys.path])
        # Otherwise a module written twice in a second may be loaded from the cache.
        self.patch(sys, "dont_write_bytecode", True)
        self.addCleanup(self.forget)
        self.module("findme/__init__.py", "here = True")
        self.module("findme/site.py", SITE)

    def forget(self) -> None:
        """Remove the modules of this test from `sys.modules`."""
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
        """Return the response body of the named application."""
        [block] = find_app(spec)({}, lambda *_args: lambda _block: None)
        return str(block)

    def refusal(self, spec: str) -> str:
        """Return the error message without the name that it starts with."""
        message = str(self.assertRaises(AppNotFound, find_app, spec))
        beginning = f"--app {spec!r}: "
        self.assertEqual(message[: len(beginning)], beginning)
        return message[len(beginning) :].replace(self.directory, "DIR")

    def test_specs(self) -> None:
        """An application is found by each form of its name."""
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
        """A module alone names its `application`, or else its `app`."""
        self.module("findme/flask.py", "def app(e, s): return ['flask']")
        self.assertEqual(self.answer("findme.flask"), "flask")

    def test_no_such_module(self) -> None:
        """For a misspelled module, the message gives the search path and a hint."""
        self.assertEqual(
            self.refusal("findma:app"),
            "there is no module findma (looked in DIR first); did you mean findme?; "
            "give --chdir if it is in another directory",
        )
        self.assertEqual(
            self.refusal("zzz"),
            "there is no module zzz (looked in DIR first); give --chdir if it is in "
            "another directory",
        )

    def test_no_such_module_in_package(self) -> None:
        """For a misspelled submodule, the message suggests one of the package."""
        self.assertEqual(
            self.refusal("findme.sites:app"),
            "there is no module findme.sites (package findme is in DIR/findme); did "
            "you mean site?",
        )

    def test_no_package(self) -> None:
        """The message says so if a module is named as a package."""
        self.assertEqual(
            self.refusal("findme.site.app:app"),
            "there is no module findme.site.app: findme.site is a module, not a "
            "package",
        )

    def test_no_such_name(self) -> None:
        """For a misspelled name, the message suggests the most similar one."""
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
        """For an unknown name, the message lists what the module defines."""
        self.module("findme/few.py", "import os\ndef make(): pass\nclass Web: pass\n")
        self.assertEqual(
            self.refusal("findme.few:zzzzzz"),
            "module findme.few has no zzzzzz; it has Web, make",
        )

    def test_nothing_to_choose(self) -> None:
        """A module without `application` and `app` is refused with what it defines."""
        self.module("findme/few.py", "def make(): pass\n")
        self.assertEqual(
            self.refusal("findme.few"),
            "module findme.few has neither application nor app; it has make; name the "
            "application: --app findme.few:NAME",
        )
        self.module("findme/none.py", "")
        self.assertEqual(
            self.refusal("findme.none"),
            "module findme.none has neither application nor app; name the application: "
            "--app findme.none:NAME",
        )

    def test_files(self) -> None:
        """For a file name, the message gives the module name."""
        self.assertEqual(
            self.refusal("./findme/site.py:app"),
            "'./findme/site.py' is a file name; give the module name, as Python "
            "imports it: --app findme.site:app; give --chdir if it is in another "
            "directory",
        )
        self.assertIn("--app hello;", self.refusal("hello.py"))
        self.assertIn("--app site.wsgi;", self.refusal("site/wsgi.py"))
        self.assertIn("--app 'shop:make()';", self.refusal("shop.py:make()"))
        self.assertIn(": --app good.app;", self.refusal("good/app"))

    def test_absolute_files(self) -> None:
        """For an absolute path, the message gives its directory too."""
        self.assertEqual(
            self.refusal("/srv/shop/wsgi.py:app"),
            "'/srv/shop/wsgi.py' is a file name; give the module name, as Python "
            "imports it: --chdir /srv/shop --app wsgi:app",
        )
        in_package = os.path.join(self.directory, "findme", "site.py")
        self.assertTrue(
            self.refusal(in_package).endswith(": --chdir DIR --app findme.site")
        )
        error = self.assertRaises(AppNotFound, check_spec, "/srv/wsgi.py", "app")
        self.assertIn(
            ": app='wsgi', with /srv in PYTHONPATH or sys.path",
            str(error),
        )

    def test_not_a_spec(self) -> None:
        """A text of another form is refused with an example."""
        for spec in (":app", "a b:app", "a..b:app", "5:app", "-:app"):
            self.assertIn(
                "is not a module name; give package.module:name, such as --app "
                "myproject.wsgi:application",
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
                f"{expression!r} after the colon is neither a name nor a call with "
                "literal arguments; give name, object.attribute, factory() or "
                "factory('text', debug=True)",
            )

    def test_not_callable(self) -> None:
        """For an object that is not callable, the message gives value and type."""
        self.assertEqual(
            self.refusal("findme.site:number"),
            "5 is of type int, which is not callable; give a callable that takes "
            "(environ, start_response)",
        )
        self.assertEqual(
            self.refusal("findme.site:number()"),
            "number is 5 of type int, which is not callable; leave out the parentheses",
        )
        self.forget()
        self.module("findme/__init__.py", "from findme import site as app")
        self.assertIn(
            "findme.site is a module, not a callable; give the application in it, such "
            "as findme.site.application",
            self.refusal("findme:app"),
        )

    def test_class(self) -> None:
        """For a class, the message gives the name of an instance."""
        self.assertEqual(
            self.refusal("findme.site:Site"),
            "Site is a class whose instances are not iterable; if calling it "
            "returns the application, give --app 'findme.site:Site()'",
        )
        self.assertIn("--app 'findme.site:Site()'", self.refusal("findme.site.Site"))

    def test_factory(self) -> None:
        """For a factory, the message gives the name of its result."""
        self.assertEqual(
            self.refusal("findme.site:make_from"),
            "make_from takes (config), but a WSGI application takes (environ, "
            "start_response); if calling it returns the application, give --app "
            "'findme.site:make_from()'",
        )
        self.assertEqual(
            self.refusal("findme.site:make_from()"),
            "make_from takes (config), which does not match this call (missing a "
            "required argument: 'config'); change the arguments",
        )

    def test_asgi(self) -> None:
        """An ASGI application is recognized in each of its forms."""
        for name in ("asynchronous", "generator", "asgi", "Asgi()"):
            self.assertIn(
                " is an ASGI application (asynchronous), but this server speaks WSGI; "
                "give a WSGI application, or an adapter",
                self.refusal(f"findme.site:{name}"),
            )

    def test_built_in(self) -> None:
        """A callable without a readable signature is accepted."""
        self.module("findme/builtin.py", "app = dict")
        self.assertIs(find_app("findme.builtin:app"), dict)

    def test_built_in_factory(self) -> None:
        """A factory without a readable signature is called."""
        self.module("findme/builtin.py", "make = dict")
        self.assertIn("{'a': 1} is of type dict", self.refusal(MAKE_DICT))

    def assert_shows(self, spec: str, error: type[BaseException], line: str) -> None:
        """Assert that an error of the user's code propagates with its traceback."""
        raised = self.assertRaises(error, find_app, spec)
        self.assertNotIsInstance(raised, AppNotFound)
        self.assertIn(line, "".join(traceback.format_exception(raised)))

    def test_errors_of_the_module(self) -> None:
        """An error inside the user's module propagates with its traceback."""
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
        """A failed import inside a package is not reported as a misspelled name."""
        self.module("findme/__init__.py", "import findme.part")
        self.assert_shows("findme.part:app", ModuleNotFoundError, "import findme.part")
        self.forget()
        self.assert_shows("findme:app", ModuleNotFoundError, "import findme.part")

    def test_errors_of_the_name(self) -> None:
        """An error of a property or factory propagates with its traceback."""
        self.assert_shows("findme.site:breaks()", KeyError, "raise KeyError")
        self.assert_shows("findme.site:odd.broken", KeyError, "def broken")
        self.assert_shows("findme.site:odd.missing", AttributeError, "def missing")

    def test_module_that_exits(self) -> None:
        """For a script that exits when imported, the message gives the remedy."""
        self.module("findme/script.py", "import sys\nsys.exit(0)\n")
        error = self.assertRaises(AppNotFound, find_app, "findme.script:app")
        self.assertEqual(
            str(error),
            "--app 'findme.script:app': importing module findme.script ends the "
            "program (SystemExit: 0); put the code that does so under `if __name__ == "
            "'__main__':`",
        )
        self.assertIn("sys.exit(0)", "".join(traceback.format_exception(error)))

    def test_argument_of_a_program(self) -> None:
        """In a program, messages name the argument in place of the option."""
        for text, message in [
            (
                "findme.site:make_from",
                "app='findme.site:make_from': make_from takes (config), but a WSGI "
                "application takes (environ, start_response); if calling it returns "
                "the application, give app='findme.site:make_from()'",
            ),
            (
                "zzz:app",
                "app='zzz:app': there is no module zzz (looked in DIR first); add its "
                "directory to PYTHONPATH or sys.path if it is in another one",
            ),
        ]:
            error = self.assertRaises(AppNotFound, find_app, text, "app")
            self.assertEqual(str(error).replace(self.directory, "DIR"), message)

    def test_check_before_import(self) -> None:
        """An impossible module name is refused without an import."""
        check_spec("no.such.module:app")
        self.assertRaises(AppNotFound, check_spec, "site.py:app")
