"""Cron expressions: what is taken, as what, how long the longest pause is; and what is refused."""

from datetime import UTC, datetime

import pytest
from cronsim import CronSim
from notifying_postgres.errors import InvalidArgument
from notifying_postgres.schedule import read_schedule

HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("given", "expression", "pause"),
    [
        ("0 3 * * *", "0 3 * * *", DAY),
        ("* * * * *", "* * * * *", 60),
        ("*/15 * * * *", "0,15,30,45 * * * *", 900),
        ("0 */6 * * *", "0 0,6,12,18 * * *", 6 * HOUR),
        ("30 8-18/5 * * *", "30 8,13,18 * * *", 14 * HOUR),
        ("0 3 * * mon-fri", "0 3 * * 1,2,3,4,5", 3 * DAY),
        ("0 3 * * 7", "0 3 * * 0", 7 * DAY),
        ("0 3 * * 0-7", "0 3 * * *", DAY),
        ("0 3 1 jan,JUL *", "0 3 1 1,7 *", 184 * DAY),
        ("0 3 1,15 * 1", "0 3 1,15 * 1", 7 * DAY),  # the 1st, the 15th, and Mondays
        ("0 3 29 2 *", "0 3 29 2 *", 1461 * DAY),
        ("  5  4 * *   *", "5 4 * * *", DAY),
        ("@daily", "0 0 * * *", DAY),
        ("@Weekly", "0 0 * * 0", 7 * DAY),
        ("* * * 1 *", "* * * 1 *", 335 * DAY + 60),
    ],
)
def test_a_schedule_is_taken_in_every_notation(given: str, expression: str, pause: int) -> None:
    read = read_schedule("schedule", given)
    assert (read.expression, read.longest_pause) == (expression, pause)
    # It means the same as what was given.
    if not given.startswith("@"):
        begin = datetime(2026, 11, 25, tzinfo=UTC)
        one, other = CronSim(given, begin), CronSim(read.expression, begin)
        assert [next(one) for _ in range(3)] == [next(other) for _ in range(3)]


@pytest.mark.parametrize(
    "given",
    [
        *("", "0 3 * *", "0 3 * * * *", "60 3 * * *", "0 24 * * *", "0 3 0 * *", "0 3 32 * *", "0 3 30 2 *", "0 3 * 13 *"),
        *("0 3 * * 8", "0 3 * * funday", "0 3 5-1 * *", "*/0 * * * *", "0 3 L * *", "0 3 * * 1#2", "@reboot", "@often"),
        *("a b c d e", "-1 3 * * *", "0 3 * * *\n* * * * * true", "0 3 */2 * mon", "0 3 1 * */2", "0,, 3 * * *", "1- 3 * * *"),
        *(3, None, True, ["0 3 * * *"]),
    ],
)
def test_what_is_no_schedule_is_refused(given: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^databases\.app\.backup\.schedule is "):
        read_schedule("databases.app.backup.schedule", given)
