"""Pillow's operations on large images, run in threads while the task waits.

Pillow decodes an image at its first use. A file that may belong to a task, such as a
socket or a stream of the request, is read and written in the task only.

It knows Pillow's classes, without importing it. It must never know what an image is
used for.
"""

from __future__ import annotations

import inspect
import io
from functools import wraps
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

from ._heavy_calls import run_heavy_on_shared

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["offload_channel_operations", "offload_files", "offload_images"]

#: Pixels from which an operation takes about 0.3 ms or more.
PIXELS: Final = 65536

#: Methods of `Image` that process all pixels.
_METHODS: Final = (
    "alpha_composite",
    "convert",
    "copy",
    "crop",
    "effect_spread",
    "entropy",
    "filter",
    "getbbox",
    "getchannel",
    "getcolors",
    "getdata",
    "getextrema",
    "getprojection",
    "histogram",
    "paste",
    "putalpha",
    "quantize",
    "reduce",
    "remap_palette",
    "rotate",
    "split",
    "thumbnail",
    "tobytes",
    "transpose",
)
_FUNCTIONS: Final = ("alpha_composite", "blend", "composite", "merge")

# Wrappers of files: the module, and the attribute with the file.
_WRAPPERS: Final = (
    ("tempfile", "file"),
    ("tempfile", "_file"),
    ("django.core.files", "file"),
    ("werkzeug.datastructures", "stream"),
)
# Classes of files, without subclasses: they may call other code.
_ON_DISK: Final = (io.BytesIO, io.FileIO)
_BUFFERED: Final = (io.BufferedReader, io.BufferedWriter, io.BufferedRandom)


def _is_file(file: object) -> bool:
    """Return whether a thread may use `file`: it is in memory or on the disk."""
    for _ in range(4):
        if file is None or isinstance(file, (str, bytes, PathLike)):
            return True
        kind = type(file)
        if kind in _ON_DISK:
            return True
        if isinstance(file, _BUFFERED) and kind in _BUFFERED:
            file = file.raw
            continue
        inner = None
        for module, name in _WRAPPERS:
            if f"{kind.__module__}.".startswith(f"{module}."):
                inner = inner or vars(file).get(name)
        if inner is None:
            return False
        file = inner
    return False


def _area(size: object) -> int:
    """Return the number of pixels of a (width, height); 0 for other objects."""
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        return 0
    try:
        return int(size[0] * size[1])
    except (TypeError, ValueError, OverflowError):
        return 0


def _is_pending(image: Any) -> bool:
    """Return whether the image is not decoded yet."""
    state = vars(image)
    return bool(state.get("tile")) or state.get("_im", state.get("im")) is None


def _may_decode(image: Any) -> bool:
    """Return whether a thread may use the image: decoding reads no task's file."""
    if not _is_pending(image):
        return True
    state = vars(image)
    return _is_file(state.get("fp")) and _is_file(state.get("_fp"))


def _is_heavy(image: Any, target: object = None) -> bool:
    """Return whether to process `image` in a thread.

    Args:
        image: the image.
        target: the size of the result, if it may be larger.
    """
    area = max(_area(getattr(image, "size", None)), _area(target))
    return area >= PIXELS and _may_decode(image)


def _offload(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of an image that runs in a thread."""

    @wraps(original)
    def heavy(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_heavy(self):
            return original(self, *args, **kwargs)
        return run_heavy_on_shared(original, self, *args, **kwargs)

    return heavy


def _offload_resizing(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def heavy(self: Any, size: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_heavy(self, size):
            return original(self, size, *args, **kwargs)
        return run_heavy_on_shared(original, self, size, *args, **kwargs)

    return heavy


def _offload_point(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def point(self: Any, lut: Any, *args: Any, **kwargs: Any) -> Any:
        # A function of the application is called in the task.
        if callable(lut) or not _is_heavy(self):
            return original(self, lut, *args, **kwargs)
        return run_heavy_on_shared(original, self, lut, *args, **kwargs)

    return point


def _offload_load(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def load(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_pending(self) or not _is_heavy(self):
            return original(self, *args, **kwargs)
        return run_heavy_on_shared(original, self, *args, **kwargs)

    return load


def _offload_save(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def save(self: Any, fp: Any, format: Any = None, **params: Any) -> Any:  # noqa: A002 - Pillow's name
        if not _is_heavy(self):
            return original(self, fp, format, **params)
        if _is_file(fp):
            return run_heavy_on_shared(original, self, fp, format, **params)
        if format is None or hasattr(fp, "seek"):
            return original(self, fp, format, **params)
        # A stream: encode in the thread, write in the task.
        encoded = io.BytesIO()
        run_heavy_on_shared(original, self, encoded, format, **params)
        fp.write(encoded.getvalue())
        return None

    return save


def _replace(owner: Any, name: str, wrap: Callable[..., Any]) -> None:
    original = vars(owner).get(name)
    if inspect.isfunction(original):
        setattr(owner, name, wrap(original))


def offload_images(module: ModuleType) -> None:
    """Off-load the operations of `PIL.Image`. Never parks."""
    image: Any = module.__dict__["Image"]
    for name in _METHODS:
        _replace(image, name, _offload)
    for name in ("resize", "transform"):
        _replace(image, name, _offload_resizing)
    _replace(image, "point", _offload_point)
    _replace(image, "save", _offload_save)
    for name in _FUNCTIONS:
        _replace(module, name, _offload_of_argument)


def _offload_of_argument(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of images that runs in a thread."""

    @wraps(original)
    def heavy(*args: Any, **kwargs: Any) -> Any:
        images = list[Any]()
        for value in (*args, *kwargs.values()):
            images += value if isinstance(value, (list, tuple)) else [value]
        images = [image for image in images if hasattr(image, "getbands")]
        if not any(map(_is_heavy, images)) or not all(map(_may_decode, images)):
            return original(*args, **kwargs)
        return run_heavy_on_shared(original, *args, **kwargs)

    return heavy


def offload_channel_operations(module: ModuleType) -> None:
    """Off-load the functions of `PIL.ImageChops`. Never parks."""
    for name, value in list(vars(module).items()):
        if (
            inspect.isfunction(value)
            and value.__module__ == module.__name__
            and not name.startswith("_")
        ):
            _replace(module, name, _offload_of_argument)


def offload_files(module: ModuleType) -> None:
    """Off-load the decoding of image files, of all formats. Never parks."""
    file: Any = module.__dict__["ImageFile"]
    if "__init_subclass__" in vars(file):
        return

    def wrap_load(cls: Any) -> None:
        _replace(cls, "load", _offload_load)
        for derived in cls.__subclasses__():
            wrap_load(derived)

    wrap_load(file)

    def init_subclass(cls: Any, /, **kwargs: object) -> None:
        super(file, cls).__init_subclass__(**kwargs)
        # A format that decodes by itself.
        _replace(cls, "load", _offload_load)

    file.__init_subclass__ = classmethod(init_subclass)
