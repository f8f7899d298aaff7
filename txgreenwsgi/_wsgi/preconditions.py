"""Conditional requests and ranges (RFC 9110 sections 13 and 14).

Knows the fields of these sections. Must never know what is served.
"""

from __future__ import annotations

import re
from calendar import timegm
from datetime import datetime, timezone
from email.utils import formatdate
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "FAILED",
    "NOT_MODIFIED",
    "PROCEED",
    "UNSATISFIABLE",
    "Span",
    "Validators",
    "evaluate",
    "format_date",
    "parse_date",
    "selected_range",
]

#: Results of `evaluate`.
PROCEED: Final = "proceed"
NOT_MODIFIED: Final = "not modified"
FAILED: Final = "failed"

# RFC 9110 section 8.8.3.
_TAG: Final = re.compile(r'[ \t,]*((?:W/)?"[!\x23-\x7e\x80-\xff]*")[ \t]*(?:,|\Z)')
_END: Final = re.compile(r"[ \t,]*\Z")

# RFC 9110 section 5.6.7.
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
_MONTH: Final = f"({'|'.join(_MONTHS)})"
_TIME: Final = r"([0-9]{2}):([0-9]{2}):([0-9]{2})"
_DATE: Final = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), "
    rf"([0-9]{{2}}) {_MONTH} ([0-9]{{4}}) {_TIME} GMT\Z"
)
_DATE_850: Final = re.compile(
    r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, "
    rf"([0-9]{{2}})-{_MONTH}-([0-9]{{2}}) {_TIME} GMT\Z"
)
_DATE_ASCTIME: Final = re.compile(
    rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) {_MONTH} ([0-9 ][0-9]) {_TIME} ([0-9]{{4}})\Z"
)

# RFC 9110 section 14.1.1: one range of the unit "bytes".
_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*\Z", re.IGNORECASE)
_MAX_DIGITS: Final = 18


class Validators(NamedTuple):
    """The validators of the selected representation.

    Attributes:
        etag: the strong entity tag, with its quotes.
        modified: the time of the last modification, in whole seconds since 1970.
    """

    etag: str
    modified: int


class Span(NamedTuple):
    """A part of a representation: the first position and the one after the last."""

    start: int
    end: int


#: A range that does not overlap the representation: 416 (RFC 9110 section 15.5.17).
UNSATISFIABLE: Final = Span(0, 0)


def format_date(seconds: float) -> str:
    """Return a time as an HTTP date (IMF-fixdate)."""
    return formatdate(int(seconds), usegmt=True)


def parse_date(text: str) -> int | None:
    """Return the time of an HTTP date in seconds since 1970; None if it is not one.

    All three formats of RFC 9110 section 5.6.7 are accepted.
    """
    if found := _DATE.match(text):
        day, month, year, *time = found.groups()
    elif found := _DATE_850.match(text):
        day, month, year, *time = found.groups()
        this_year = datetime.now(timezone.utc).year
        full = this_year // 100 * 100 + int(year)
        # More than 50 years in the future is in the past.
        year = str(full - 100 if full > this_year + 50 else full)
    elif found := _DATE_ASCTIME.match(text):
        month, day, *time, year = found.groups()
    else:
        return None
    hour, minute, second = map(int, time)
    try:
        moment = datetime(
            int(year), _MONTHS.index(month) + 1, int(day), hour, minute, min(second, 59)
        )
    except ValueError:
        return None
    if second > 60:  # 60 is a leap second
        return None
    return timegm(moment.timetuple()) + max(second - 59, 0)


def evaluate(
    variables: Mapping[str, str], validators: Validators, *, reads: bool = True
) -> str:
    """Return the result of the preconditions of a request (section 13.2.2).

    Args:
        variables: the header fields, as environ variables.
        validators: those of the selected representation, which exists.
        reads: whether the method is GET or HEAD.

    Returns:
        `PROCEED`, `NOT_MODIFIED` (304) or `FAILED` (412).
    """
    tags = variables.get("HTTP_IF_MATCH")
    if tags is not None:
        if not _matches(tags, validators.etag, weakly=False):
            return FAILED
    else:
        date = parse_date(variables.get("HTTP_IF_UNMODIFIED_SINCE", ""))
        if date is not None and validators.modified > date:
            return FAILED
    tags = variables.get("HTTP_IF_NONE_MATCH")
    if tags is not None:
        if _matches(tags, validators.etag, weakly=True):
            return NOT_MODIFIED if reads else FAILED
    elif reads:
        date = parse_date(variables.get("HTTP_IF_MODIFIED_SINCE", ""))
        if date is not None and validators.modified <= date:
            return NOT_MODIFIED
    return PROCEED


def _matches(tags: str, etag: str, *, weakly: bool) -> bool:
    """Return whether a list of entity tags contains one (section 8.8.3.2).

    A malformed list contains none.
    """
    if tags.strip(" \t") == "*":
        return True
    found = False
    position = 0
    while tag := _TAG.match(tags, position):
        text = tag[1].removeprefix("W/") if weakly else tag[1]
        found = found or text == etag
        position = tag.end()
    return found and bool(_END.match(tags, position))


def selected_range(
    variables: Mapping[str, str], validators: Validators, size: int, now: float
) -> Span | None:
    """Return the part of a representation that a GET request asks for.

    Args:
        variables: the header fields, as environ variables.
        validators: those of the selected representation.
        size: its length in bytes.
        now: the time of the response, in seconds since 1970.

    Returns:
        None for the whole representation: without a range, with several ranges, with
        one that is malformed, and if If-Range does not match. `UNSATISFIABLE` if the
        range does not overlap it.
    """
    text = variables.get("HTTP_RANGE")
    if text is None or not _continues(variables.get("HTTP_IF_RANGE"), validators, now):
        return None
    found = _RANGE.match(text)
    if found is None:
        return None
    first, last = found.groups()
    if first:
        start, end = _number(first), size
        if last:
            end = _number(last) + 1
            if end <= start:
                return None  # malformed: the last position is before the first
        return UNSATISFIABLE if start >= size else Span(start, min(end, size))
    if not last:
        return None
    count = _number(last)
    if not count:
        return UNSATISFIABLE
    # An empty representation cannot be described by Content-Range.
    return Span(max(size - count, 0), size) if size else None


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return 10**_MAX_DIGITS if len(digits) > _MAX_DIGITS else int(digits or "0")


def _continues(condition: str | None, validators: Validators, now: float) -> bool:
    """Return whether If-Range is absent or matches (section 13.1.5)."""
    if condition is None:
        return True
    condition = condition.strip(" \t")
    if condition.startswith(('"', "W/")):
        return condition == validators.etag  # a weak tag never matches
    # A date is a strong validator if it is older than the response by a second
    # (section 8.8.2.2).
    return parse_date(condition) == validators.modified and validators.modified < int(
        now
    )
