"""The boundary: whatever a check raises is a line."""

from collections.abc import Iterator

import pytest

from flowerfast.doctor.line import Line, guarded, told


def test_what_a_check_raises_is_its_last_line() -> None:
    def check() -> Iterator[Line]:
        yield Line("a", "ok", "fine")
        raise OSError(5, "Input/output error", "x.jpg")

    found = "OSError: x.jpg: Input/output error"
    assert guarded("b", "mend it", check) == [Line("a", "ok", "fine"), Line("b", "fail", found, "mend it")]


def test_an_interruption_is_none_of_its_business() -> None:
    def check() -> Iterator[Line]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded("b", "", check)


def test_problems_of_other_rooms_are_taken_apart() -> None:
    assert told("numba is not installed; pip install numba") == (
        "numba is not installed",
        "pip install numba",
    )
    assert told("it is broken (a; b); mend it") == ("it is broken (a; b)", "mend it")
    assert told("no") == ("no", "")
