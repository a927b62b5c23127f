"""What look.sh tells of backups, as the component reads it."""

from notifying_postgres.host import read_look

LOOKED = """Welcome to the host!
notifying-postgres: attempt pg-app 0
notifying-postgres: image 0
notifying-postgres: engine ENGINE
notifying-postgres: backup pg-app newest 20261125T030000Z of 7
notifying-postgres: backup pg-app verified 20261124T030000Z
notifying-postgres: backup pg-app wrong the last trial FAILED at 20261125T050000Z: it differs
notifying-postgres: backup pg-app wrong overdue: no backup was made since 20261125T030000Z
notifying-postgres: backup pg-app unproven
notifying-postgres: backup pg-new newest none of 0
notifying-postgres: backup pg-new verified none
notifying-postgres: backup pg-gone wrong pg-gone-backup, which makes the backups, is exited: docker start pg-gone-backup
notifying-postgres: done
status 0
"""


def test_how_the_backups_are_is_read_behind_a_greeting() -> None:
    seen = read_look("the host", LOOKED)
    assert seen.attempts == {"pg-app": "0"}
    assert seen.unproven == {"pg-app"}
    assert seen.backups == {
        "pg-app": {
            "newest": "20261125T030000Z",
            "verified": "20261124T030000Z",
            "problem": "the last trial FAILED at 20261125T050000Z: it differs; overdue: no backup was made since 20261125T030000Z",
        },
        "pg-new": {"newest": None, "verified": None, "problem": None},
        "pg-gone": {
            "newest": None,
            "verified": None,
            "problem": "pg-gone-backup, which makes the backups, is exited: docker start pg-gone-backup",
        },
    }
