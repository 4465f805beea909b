"""Tables: aligned, and narrower where there is little room."""

from __future__ import annotations

from twofold.report.table import aligned, fitted

ROWS = [("plan", "time", "remark"), ("best", "12 h", "all is well"), ("other", "130 h", "slow")]


def test_columns_end_alike_and_the_first_begins_alike() -> None:
    assert aligned(ROWS, left=(0, 2)) == [
        "plan    time  remark",
        "best    12 h  all is well",
        "other  130 h  slow",
    ]


def test_steps_are_taken_until_the_rest_fits_and_no_further() -> None:
    steps = [(2, ("remark", "well", "slow")), (1, None), (2, None)]
    lines, gone = fitted(ROWS, left=(0, 2), width=20, steps=steps)
    assert lines == ["plan    time  remark", "best    12 h  well", "other  130 h  slow"]
    assert gone == ()
    lines, gone = fitted(ROWS, left=(0, 2), width=19, steps=steps)
    assert lines == ["plan   remark", "best   well", "other  slow"]
    assert gone == ("time",)
    assert fitted(ROWS, left=(0, 2), steps=steps)[0] == aligned(ROWS, left=(0, 2))


def test_a_table_that_no_step_fits_is_too_wide_but_whole() -> None:
    lines, _ = fitted(ROWS, width=3, steps=[(2, None)])
    assert lines == ["plan    time", "best    12 h", "other  130 h"]
