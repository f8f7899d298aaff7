"""Content codings that a client accepts (RFC 9110 section 12.5.3).

Knows one field. Must never know files.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["accepted_codings", "preferred_coding"]

# RFC 9110 sections 5.6.2 and 12.4.2.
_ELEMENT: Final = re.compile(
    r"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)"
    r"(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*\Z",
    re.IGNORECASE,
)
_ALIASES: Final = {"x-gzip": "gzip", "x-compress": "compress"}


def accepted_codings(field: str) -> dict[str, float]:
    """Return the weight of each coding in Accept-Encoding; 0 for one that is refused.

    Malformed elements are ignored.
    """
    weights: dict[str, float] = {}
    for element in field.split(","):
        found = _ELEMENT.match(element)
        if found is not None:
            name = found[1].lower()
            weight = 1.0 if found[2] is None else float(found[2])
            weights.setdefault(_ALIASES.get(name, name), weight)
    return weights


def preferred_coding(field: str, available: Iterable[str]) -> str:
    """Return the coding to send; "" for none (identity).

    Of codings with the same weight, the first available one. If nothing is acceptable,
    the identity is sent (section 12.5.3 permits it).

    Args:
        field: the value of Accept-Encoding; "" without the field.
        available: the codings of the representation, the best one first.
    """
    weights = accepted_codings(field)
    others = weights.get("*", 0.0)
    # Without a weight of its own, the identity is acceptable but not preferred.
    identity = weights.get("identity", 0.0)
    best, best_weight = "", 0.0
    for coding in available:
        weight = weights.get(coding, others)
        if weight > best_weight and weight >= identity:
            best, best_weight = coding, weight
    return best
