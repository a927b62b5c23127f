"""Cron expressions, as `crond` in the image follows them: checked, written as all programs read them, and measured."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise

from cronsim import CronSim, CronSimError

from .errors import InvalidArgument

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@dataclass(frozen=True)
class Schedule:
    """When something is done, in UTC.

    :ivar expression: five fields of numbers, commas and stars.
    :ivar longest_pause: the most seconds that lie between one time and the next.
    """

    expression: str
    longest_pause: int


def read_schedule(key: str, value: object) -> Schedule:
    """A cron expression of five fields (man 5 crontab), or a nickname such as `@daily`.

    :raises InvalidArgument: when it is none, or names no time that ever comes.
    """
    refusal = InvalidArgument(key, value, "give a cron expression of five fields in UTC, such as '0 3 * * *', or @daily")
    if not isinstance(value, str):
        raise refusal
    given = NICKNAMES.get(value.strip().lower(), value).split()
    # Not all that cronsim reads: busybox has neither seconds, nor `L` and `#`.
    if len(given) != 5 or not all(re.fullmatch(r"(?:[0-9*/,-]|[A-Za-z]{3})+", field) for field in given):
        raise refusal
    if given[2] != "*" and given[4] != "*" and "*" in given[2][0] + given[4][0]:
        # Such as `*/2 * mon`: each second day that is a Monday, to Debian's crond; each second day and each Monday, to busybox'.
        raise InvalidArgument(key, value, "programs differ in what that means; give days of the month or days of the week")
    try:
        read = CronSim(" ".join(given), datetime(2024, 1, 1, tzinfo=UTC))
        day_gap = _longest_day_gap(" ".join(given[2:]))
    except (CronSimError, StopIteration):
        raise refusal from None

    weekdays = {day % 7 for day in read.weekdays if isinstance(day, int)}
    fields = [
        _field(read.minutes, 60),
        _field(read.hours, 24),
        _field(read.days, 31),
        _field(read.months, 12),
        _field(weekdays, 7),
    ]
    times = sorted(60 * hour + minute for hour in read.hours for minute in read.minutes)
    within = [later - earlier for earlier, later in pairwise(times)]
    return Schedule(" ".join(fields), 60 * max(*within, 24 * 60 * day_gap - times[-1] + times[0], 0))


def _field(numbers: set[int], all: int) -> str:
    return "*" if len(numbers) == all else ",".join(str(number) for number in sorted(numbers))


@cache
def _longest_day_gap(days: str) -> int:
    """The most days between two that fit the last three fields; 29 February comes every four years.

    :raises StopIteration: when there is none.
    """
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    fitting = CronSim(f"0 0 {days}", begin)
    found: list[datetime] = []
    while not found or (found[-1] - begin).days < 366 * (1 if len(found) > 12 else 9):
        found.append(next(fitting))
    return max((later - earlier).days for earlier, later in pairwise(found))
