"""Radicale, a CalDAV server, driven by the library caldav."""

from __future__ import annotations

import datetime
import os
from typing import Any

from .client import at_once, check, data_folder, fetch, main

CONFIG = """[auth]
type = none
[storage]
filesystem_folder = {folder}/collections
"""


def prepare() -> None:
    """Write the configuration."""
    config = CONFIG.format(folder=data_folder())
    (data_folder() / "config").write_text(config)


def make_app() -> Any:
    """Return Radicale without authentication."""
    os.environ["RADICALE_CONFIG"] = str(data_folder() / "config")
    from radicale import application

    return application


def drive(url: str) -> None:
    """Create a calendar; add, search, change and delete events."""
    from caldav import DAVClient

    day = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.timezone.utc)
    hour = datetime.timedelta(hours=1)

    def connect() -> Any:
        return DAVClient(f"{url}/", username="user", password="x")

    principal = connect().principal()
    calendar = principal.make_calendar(name="Work", cal_id="work")
    names = [each.get_display_name() for each in principal.calendars()]
    check("MKCALENDAR, PROPFIND", names == ["Work"], names)

    def add(number: int) -> bool:
        there = connect().calendar(url=calendar.url)
        at = day + number * hour
        there.add_event(
            uid=f"event-{number}",
            summary=f"Event {number} é",
            dtstart=at,
            dtend=at + hour,
        )
        return True

    check("PUT: 50 clients add events", all(at_once(add)))
    check("all events", len(calendar.events()) == 50)
    found = calendar.search(
        start=day + 10 * hour, end=day + 15 * hour, event=True, expand=False
    )
    texts = [each.icalendar_component["summary"] for each in found]
    expected = {f"Event {number} é" for number in range(10, 15)}
    check("REPORT: search of a period", set(texts) == expected, texts)
    event = calendar.event_by_uid("event-7")
    with event.edit_icalendar_component() as component:
        component["summary"] = "changed"
    event.save()
    again = calendar.event_by_uid("event-7").icalendar_component["summary"]
    check("PUT: change", again == "changed", again)
    event.delete()
    check("DELETE", len(calendar.events()) == 49)
    pages = at_once(lambda _: fetch(f"{url}/user/work/").text.count("BEGIN:VEVENT"))
    check("50 exports at once", set(pages) == {49}, pages)
    calendar.delete()
    check("DELETE: calendar", not principal.calendars())


if __name__ == "__main__":
    main(prepare, drive)
