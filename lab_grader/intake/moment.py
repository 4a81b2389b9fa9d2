"""When something was handed in: what `timestamp.txt` says, read strictly and never guessed.

nbgrader's own reader takes the text for a path of a time zone's file, a zone that it does not know
for UTC, and "10" for the tenth of this month.
"""

import codecs
import functools
import re
import zoneinfo
from datetime import UTC, datetime, timedelta, timezone

# 2026-11-25 12:00:00.000000 Europe/Berlin, 2026-11-25T12:00:00+01:00
FORM = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?) ?(\S*)", re.ASCII)
OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)", re.ASCII)
MOST_BYTES = 200
BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # with which PowerShell begins a file


class NoMoment(Exception):
    """A text does not say when; the message says what it says."""


def read_moment(content: bytes) -> tuple[datetime, str]:
    """Return a moment in UTC, and what a person should know of how it was read.

    Raises:
        NoMoment: the text is not a date and time, or its zone is not known.
    """
    begins = content[:MOST_BYTES]
    encoding = "utf-16" if begins.startswith(BOMS) else "utf-8-sig"
    text = begins.decode(encoding, "replace").strip()
    form = FORM.fullmatch(text)
    if form is None:
        raise NoMoment(f"{text[:60]!r} is not a time such as 2026-11-25 12:00:00 UTC")
    when, zone = form.groups()
    try:
        local = datetime.fromisoformat(when)
        offset, note = _offset(local, zone)
        return (local - offset).replace(tzinfo=UTC), note
    except (ValueError, OverflowError) as error:
        why = str(error).partition(",")[0]
        raise NoMoment(f"{text[:60]!r} is not a time ({why})") from error


def _offset(local: datetime, zone: str) -> tuple[timedelta, str]:
    if zone in ("Z", "UTC"):
        return timedelta(0), ""
    if not zone:
        return timedelta(0), "it names no time zone; UTC is assumed"
    if numeric := OFFSET.fullmatch(zone):
        sign, hours, minutes = numeric.groups()
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-offset if sign == "-" else offset).utcoffset(None), ""
    if zone not in _zones():
        raise NoMoment(f"the time zone {zone[:40]!r} is not known; write one such as Europe/Berlin")
    return local.replace(tzinfo=zoneinfo.ZoneInfo(zone)).utcoffset(), ""


@functools.cache
def _zones() -> set[str]:
    """The names of all zones: a student's text is compared with them before it names a file."""
    return zoneinfo.available_timezones()
