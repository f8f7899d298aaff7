"""The build hook: compile the fast path, or make a pure wheel.

TXGREENWSGI_BUILD decides: "auto" compiles if a compiler and the headers are there,
"native" fails without them, "pure" never compiles. An editable installation gets the
module in place, beside its source.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent))
try:
    from tools import native_extension
finally:
    del sys.path[0]


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds the compiled module to a wheel."""

    def dependencies(self) -> list[str]:
        """Return what the build needs in addition to hatchling."""
        if self._mode() == "pure":
            return []
        return list(native_extension.REQUIREMENTS)

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the module, and add it to the wheel or to the checkout."""
        root = Path(self.root)
        editable = version == "editable"
        mode = self._mode()
        if mode == "pure":
            if editable:
                native_extension.remove_in_place(root)
            return
        # Removed when this hook is, after the wheel has been written.
        self._folder = tempfile.TemporaryDirectory(prefix="txgreenwsgi-build-")
        try:
            built = native_extension.compile_module(root, Path(self._folder.name))
        except native_extension.CompileFailed as error:
            if mode == "native":
                raise SystemExit(
                    f"txgreenwsgi cannot be compiled: {error}. "
                    f"{native_extension.VARIABLE}=pure builds it without the fast path"
                ) from error
            self.app.display_warning(
                f"warning: txgreenwsgi is built without its compiled fast path: {error}"
            )
            return
        if editable:
            native_extension.install_in_place(built, root)
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        target = native_extension.PACKAGE / built.name
        build_data["force_include"][str(built)] = str(target)

    def _mode(self) -> str:
        try:
            return native_extension.mode()
        except native_extension.BuildModeError as error:
            raise SystemExit(str(error)) from error
