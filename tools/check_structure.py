"""Check the structure of the code: import cycles, private names, `Any`.

`python -m tools.check_structure` prints each violation as `file:line: message`,
then the counts of each folder, and exits with status 1 if there are any. Give paths
to see only the violations in those files or folders. The rules:

cycle
    No import cycles between the files of the package. All imports count, those
    under `if TYPE_CHECKING` and those inside functions included.
private-import
    No room (a module or package directly in the package) imports another room's
    underscore modules or underscore names. The rooms themselves may have an
    underscore: `txgreenwsgi._switching.tasks` is open to its siblings. The same
    holds for tests, examples and benchmarks, which are outside of all rooms.
private-attribute
    No room reads or writes `obj._name` where `_name` is defined in another room
    only. Names are resolved by spelling: types are not known. Strings given to
    getattr, setattr, hasattr, delattr and trial's `patch` count too. Underscore
    names of other projects are allowed where `FOREIGN` gives the reason.
any
    Fewer than `MOST_ANY` uses of `Any` in each thousand lines of the package.

Only the `ast` module is used: nothing is imported from the code under check.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = [
    "FOREIGN",
    "MOST_ANY",
    "Project",
    "SourceFile",
    "Violation",
    "any_per_thousand_lines",
    "report",
]

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = "txgreenwsgi"
FOLDERS: Final = (PACKAGE, "tests", "examples", "benchmarks", "tools", "twisted")
MOST_ANY: Final = 25.0

#: Underscore names of other projects that the code may use: reasons by name. A
#: dotted name allows the attribute of an expression with that spelling only.
FOREIGN: Final[Mapping[str, str]] = {
    # The standard library, documented.
    "_exit": "os: documented; the only way to end a forked child without cleanup",
    "_get_running_loop": "asyncio: documented for authors of event loops",
    "_enter_task": "asyncio: documented for authors of event loops",
    "_leave_task": "asyncio: documented for authors of event loops",
    "_current_frames": "sys: documented; the line that each thread runs",
    "_getframe": "sys: documented; the frame of a caller",
    "_is_gil_enabled": "sys: documented; refuses free-threaded builds",
    "_xoptions": "sys: documented; passed on to a restarted interpreter",
    # The standard library, replaced or mirrored by green modules.
    "_local": "_thread: the class behind threading.local",
    "threading._active": "the thread table, which must not grow",
    "_excepthook": "_thread: the default of threading.excepthook",
    "_tstate_lock": "threading: releases the main thread's lock at exit",
    "_check_sendfile_params": "socket: the checks of socket.sendfile",
    "_GiveupOnSendfile": "socket: raised to fall back to send()",
    "original._is_owned": "RLock: tells the owner, which can acquire it again",
    "original._io_refs": "socket: the number of files made of it",
    "original._closed": "socket: closed, except for the files made of it",
    "plain._create": "ssl: creates the socket of SSLContext.wrap_socket",
    "_SSLContext": "_ssl: the C class below SSLContext",
    "_selector_cls": "selectors: the poll object of a selector class",
    "_select": "selectors: select() of SelectSelector",
    "_run_exitfuncs": "atexit: runs the handlers before os._exit()",
    "module._children": "multiprocessing: its processes; active_children() reaps them",
    "child._popen": "multiprocessing: whether a process has been reaped",
    "_exc_info_to_string": "unittest: formats a traceback for its own tests",
    "_args_from_interpreter_flags": "subprocess: the flags of this interpreter, as "
    "multiprocessing passes them on",
    # Twisted.
    "_poller": "epoll reactor: its epoll object, to register a socket exclusively",
    "_realPortNumber": "a port of Twisted: the number of the bound port",
    "_startedBefore": "reactor: tells a stopped reactor from one never started",
    "_asyncioEventloop": "asyncio reactor: the loop that it runs on",
    "channel._conn": "HTTP/2 stream of twisted.web: its connection",
    "channel._dataBuffer": "HTTP/1.1 channel of twisted.web: pipelined input",
    "module._exitWithSignal": "twistd: the kill after which no exit handler runs",
    "globalLogPublisher._observers": "twist: the observer whose format is chosen",
    "_getLogObserver": "twistd: opens the log that its options select",
    "_tempDataLen": "transport: bytes that are not written yet",
    "_creatorCallable": "TLSMemoryBIOFactory: makes the TLS state of a connection",
    "_createConnection": "the same, before Twisted 25.5",
    # pyOpenSSL, which has no function that reads into given memory.
    "_ssl": "Connection: OpenSSL's object",
    "_into_ssl": "Connection: the input of OpenSSL",
    "_from_ssl": "Connection: the output of OpenSSL",
    # Django and asgiref.
    "_thread_ident": "DatabaseWrapper: the thread that may use it",
    "handler._connections": "BaseConnectionHandler: its thread-local",
    "connections._connections": "BaseConnectionHandler: its thread-local",
    "module._thread": "django.db.backends.base.base: its get_ident()",
    "self._options": "cache backend: a subclass reads its options",
    "self._servers": "cache backend: a subclass reads its servers",
    "self._class": "cache backend: a subclass makes its client",
    "_raw_ipv6": "runserver: a subclass formats the address",
    # Others.
    "_sock": "PyMySQL: the socket, for its descriptor",
    "raw._result": "PyMySQL: whether rows are left unread",
    "_WaitTimeout": "psycopg: the timeout that its waiting functions raise",
    "_get_environ": "Werkzeug: the environ of its test client",
}

_BY_STRING: Final = frozenset(("getattr", "setattr", "hasattr", "delattr", "patch"))


@dataclass(frozen=True, order=True)
class Violation:
    """A place that breaks a rule.

    Attributes:
        path: relative to the root of the project.
        line: counted from 1.
        rule: name of the rule.
        message: the violation in a sentence.
    """

    path: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        """The line that is printed."""
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


@dataclass(frozen=True)
class _Import:
    """An import statement's target.

    Attributes:
        module: dotted name of the module that the name is taken from.
        name: the name taken, "" for `import module`.
        line: of the statement.
    """

    module: str
    name: str
    line: int


@dataclass
class SourceFile:
    """A parsed file and the names it defines.

    Attributes:
        path: relative to the root of the project.
        module: dotted name.
        tree: its syntax tree.
        lines: number of lines.
        imports: all imports, wherever they are.
        defined: underscore names of its module, classes and instances.
    """

    path: str
    module: str
    tree: ast.Module
    lines: int
    imports: list[_Import] = field(default_factory=list)
    defined: set[str] = field(default_factory=set)

    @classmethod
    def parse(cls, path: str, text: str) -> SourceFile:
        """Return the file with this text."""
        names = path.removesuffix(".py").split("/")
        is_package = names[-1] == "__init__"
        if is_package:
            names.pop()
        tree = ast.parse(text, path)
        file = cls(path, ".".join(names), tree, text.count("\n"))
        package = names if is_package else names[:-1]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                file.imports += [
                    _Import(each.name, "", node.lineno) for each in node.names
                ]
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*base, *([node.module] if node.module else [])])
                file.imports += [
                    _Import(module, each.name, node.lineno) for each in node.names
                ]
        file.defined.update(name for name in _defined(tree) if _is_private(name))
        return file

    @property
    def room(self) -> str:
        """Its room: the part after the package's name, or the folder outside."""
        names = self.module.split(".")
        if names[0] != PACKAGE:
            return names[0]
        return ".".join(names[:2])


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name.strip("_") != ""


def _defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a file defines for its module, classes and instances."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
            if isinstance(node, ast.ClassDef):
                yield from _slots(node)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("self", "cls")
        ):
            yield node.attr
    for body in _namespaces(tree):
        for node in ast.walk(ast.Module(body, [])):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _namespaces(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    """Yield the statements of the module and of each class, without functions."""
    scopes: list[ast.Module | ast.ClassDef] = [tree]
    scopes += [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for scope in scopes:
        yield [
            node
            for node in scope.body
            if not isinstance(
                node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            )
        ]


def _slots(node: ast.ClassDef) -> Iterator[str]:
    for statement in node.body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__slots__"
            for target in statement.targets
        ):
            for value in ast.walk(statement.value):
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value


class Project:
    """All files that are checked.

    Args:
        files: of the package and of the folders beside it.
        foreign: as `FOREIGN`.
    """

    def __init__(
        self, files: Iterable[SourceFile], foreign: Mapping[str, str] = FOREIGN
    ) -> None:
        self.files = list(files)
        self._foreign = foreign
        self._modules = {file.module for file in self.files}
        #: The rooms of the package that define each underscore name.
        self._definers: defaultdict[str, set[str]] = defaultdict(set)
        #: The underscore names that are defined in each room or folder.
        self._own: defaultdict[str, set[str]] = defaultdict(set)
        for file in self.files:
            self._own[file.room] |= file.defined
            if file.module.split(".")[0] == PACKAGE:
                for name in file.defined:
                    self._definers[name].add(file.room)

    @classmethod
    def read(cls, root: Path = ROOT) -> Project:
        """Return the project in this folder."""
        return cls(
            SourceFile.parse(path.relative_to(root).as_posix(), path.read_text("utf-8"))
            for folder in FOLDERS
            for path in sorted((root / folder).rglob("*.py"))
        )

    def violations(self) -> list[Violation]:
        """Return the violations of all rules but `any`, in order of place."""
        found = list(self.cycles())
        for file in self.files:
            found += self.private_imports(file)
            found += self.private_attributes(file)
        return sorted(set(found))

    # Rule "cycle".

    def _target(self, each: _Import) -> str:
        """Return the module that an import statement depends on."""
        below = f"{each.module}.{each.name}"
        return below if below in self._modules else each.module

    def cycles(self) -> Iterator[Violation]:
        """Yield the imports that are part of a cycle."""
        graph = {
            file.module: {
                self._target(each): each.line
                for each in file.imports
                if self._target(each) in self._modules
            }
            for file in self.files
            if file.module.split(".")[0] == PACKAGE
        }
        paths = {file.module: file.path for file in self.files}
        for group in _strongly_connected(graph):
            for module in group:
                for target, line in graph[module].items():
                    if target in group:
                        yield Violation(
                            paths[module],
                            line,
                            "cycle",
                            f"imports {target}, which imports this file again: a "
                            f"cycle of {len(group)} files",
                        )

    # Rule "private-import".

    def private_imports(self, file: SourceFile) -> Iterator[Violation]:
        """Yield the imports of another room's underscore modules and names."""
        for each in file.imports:
            names = [*each.module.split("."), *([each.name] if each.name else [])]
            if names[0] != PACKAGE or ".".join(names[:2]) == file.room:
                continue
            private = [name for name in names[2:] if _is_private(name)]
            if private:
                yield Violation(
                    file.path,
                    each.line,
                    "private-import",
                    f"{private[0]} is private to {'.'.join(names[:2])}",
                )

    # Rule "private-attribute".

    def private_attributes(self, file: SourceFile) -> Iterator[Violation]:
        """Yield the uses of attributes that are private elsewhere."""
        in_package = file.module.split(".")[0] == PACKAGE
        for node in ast.walk(file.tree):
            used = _attribute(node)
            if used is None:
                continue
            owner, name, line = used
            if not _is_private(name) or f"{owner}.{name}" in self._foreign:
                continue
            if name in file.defined:
                continue
            others = self._definers[name] - {file.room}
            own = name in self._own[file.room]
            # Outside of the package, another file's object may be of the package.
            if own and (in_package or not others or owner in ("self", "cls")):
                continue
            if others:
                rooms = ", ".join(sorted(others))
                message = f"{owner}.{name} is private to {rooms}"
            elif name in self._foreign:
                continue
            else:
                message = f"{owner}.{name} is private to another project"
            yield Violation(file.path, line, "private-attribute", message)


def _attribute(node: ast.AST) -> tuple[str, str, int] | None:
    """Return the object, the attribute and the line of an attribute's use."""
    if isinstance(node, ast.Attribute):
        return ast.unparse(node.value), node.attr, node.lineno
    if isinstance(node, ast.Call) and len(node.args) >= 2:
        function, name = node.func, node.args[1]
        called = function.attr if isinstance(function, ast.Attribute) else ""
        called = function.id if isinstance(function, ast.Name) else called
        if (
            called in _BY_STRING
            and isinstance(name, ast.Constant)
            and isinstance(name.value, str)
        ):
            return ast.unparse(node.args[0]), name.value, node.lineno
    return None


def _strongly_connected(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the groups of two or more nodes that reach each other."""
    reached = {}
    for start in graph:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            for target in graph[ahead.pop()]:
                if target in graph and target not in seen:
                    seen.add(target)
                    ahead.append(target)
        reached[start] = seen
    groups = {
        tuple(
            sorted({start, *(end for end in reached[start] if start in reached[end])})
        )
        for start in graph
    }
    return [list(group) for group in sorted(groups) if len(group) > 1]


def any_per_thousand_lines(files: Iterable[SourceFile]) -> dict[str, float]:
    """Return the density of `Any` in each room of the package, and in "all"."""
    uses: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for file in files:
        if file.module.split(".")[0] != PACKAGE:
            continue
        count = sum(
            (isinstance(node, ast.Name) and node.id == "Any")
            or (isinstance(node, ast.Attribute) and node.attr == "Any")
            for node in ast.walk(file.tree)
        )
        for key in (file.room, "all"):
            uses[key] += count
            lines[key] += file.lines
    return {key: 1000 * uses[key] / lines[key] for key in lines}


def report(project: Project, paths: Sequence[str]) -> list[str]:
    """Return one line for each violation, then one for each folder with any.

    Args:
        project: the files.
        paths: the files or folders that are reported; all if empty.
    """
    prefixes = tuple(path.strip("/") for path in paths)
    found = [
        each
        for each in project.violations()
        if not prefixes
        or each.path in prefixes
        or each.path.startswith(tuple(f"{prefix}/" for prefix in prefixes))
    ]
    lines = [str(each) for each in found]
    counts = Counter((_folder(each.path), each.rule) for each in found)
    lines += [
        f"{folder}: {count} x {rule}"
        for (folder, rule), count in sorted(counts.items())
    ]
    if not prefixes or any(prefix.split("/")[0] == PACKAGE for prefix in prefixes):
        densities = any_per_thousand_lines(project.files)
        if densities["all"] >= MOST_ANY:
            lines.append(
                f"{PACKAGE}: any: {densities['all']:.1f} uses of Any in each thousand "
                f"lines, must be fewer than {MOST_ANY:g}; the rooms with most:"
            )
            del densities["all"]
            worst = sorted(densities.items(), key=lambda item: -item[1])
            lines += [f"  {density:.1f} {room}" for room, density in worst[:8]]
    return lines


def _folder(path: str) -> str:
    """Return the room, or the folder of tests, that a file belongs to."""
    return "/".join(path.split("/")[:2])


def main(arguments: Sequence[str]) -> int:
    """Print the report; return 1 if there are violations."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.check_structure",
        description="Check import cycles, private names and the density of Any.",
    )
    parser.add_argument(
        "paths", nargs="*", help="files or folders to report (default: all)"
    )
    lines = report(Project.read(), parser.parse_args(arguments).paths)
    for line in lines:
        print(line)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
