"""From shares to levels, and how much to free."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from memkit.errors import ConfigError
from memkit.memory.pressure import Level, Thresholds, bytes_to_free, next_level, reserve_for
from memkit.units import GIB, MIB

DEFAULT = Thresholds()
LEVELS: tuple[Level, ...] = ("normal", "warning", "emergency")
shares = st.floats(0, 1)
levels = st.sampled_from(LEVELS)


@st.composite
def thresholds(draw: st.DrawFn) -> Thresholds:
    recovery, warning, emergency = sorted(draw(st.lists(st.integers(1, 100), min_size=3, max_size=3, unique=True)))
    return Thresholds(warning / 100, emergency / 100, recovery / 100, draw(st.integers(0, 4 * GIB)))


@pytest.mark.parametrize(
    ("current", "share", "expected"),
    [
        ("normal", 0.7499, "normal"),
        ("normal", 0.75, "warning"),
        ("normal", 0.90, "emergency"),
        ("warning", 0.70, "warning"),
        ("warning", 0.6999, "normal"),
        ("emergency", 0.86, "emergency"),
        ("emergency", 0.8499, "warning"),
        ("emergency", 0.6999, "normal"),
        ("emergency", 0.70, "warning"),
    ],
)
def test_levels_rise_at_a_mark_and_fall_below_its_lower_edge(current: Level, share: float, expected: Level) -> None:
    assert next_level(current, share, DEFAULT) == expected


@given(levels, shares, thresholds())
def test_a_mark_that_is_reached_is_never_reported_as_less(current: Level, share: float, marks: Thresholds) -> None:
    level = next_level(current, share, marks)
    assert (level == "emergency") >= (share >= marks.emergency)
    assert (level != "normal") >= (share >= marks.warning)
    assert (level == "normal") >= (share < marks.recovery)


@given(levels, shares, thresholds())
def test_the_same_reading_twice_gives_the_same_level(current: Level, share: float, marks: Thresholds) -> None:
    level = next_level(current, share, marks)
    assert next_level(level, share, marks) == level


@given(levels, shares, shares, thresholds())
def test_more_memory_in_use_never_gives_a_lower_level(
    current: Level, one: float, two: float, marks: Thresholds
) -> None:
    low, high = sorted((one, two))
    assert LEVELS.index(next_level(current, low, marks)) <= LEVELS.index(next_level(current, high, marks))


@given(st.lists(st.floats(-0.0249, 0.0249), max_size=20), st.sampled_from(["warning", "emergency"]))
def test_a_share_that_trembles_around_a_mark_changes_the_level_once(noise: list[float], mark: str) -> None:
    """Trembling less than the distance between a mark and its lower edge must not flap."""
    level, changes = "normal" if mark == "warning" else "warning", 0
    for tremble in noise:
        after = next_level(level, getattr(DEFAULT, mark) + tremble, DEFAULT)  # type: ignore[arg-type]
        changes += after != level
        level = after
    assert changes <= 1


@given(st.integers(1, 64 * GIB), st.floats(0, 1), thresholds())
def test_freeing_what_is_asked_for_ends_the_pressure(limit: int, part: float, marks: Thresholds) -> None:
    available = int(limit * part)
    level = next_level("normal", (limit - available) / limit, marks)
    left = available + bytes_to_free(limit, available, level, marks)
    assume(left <= limit)
    assert next_level(level, (limit - left) / limit, marks) == "normal"
    if level == "emergency":
        assert left >= reserve_for(limit, marks)


@given(st.integers(1, 64 * GIB), st.floats(0, 1), thresholds())
def test_no_more_is_asked_for_than_needed(limit: int, part: float, marks: Thresholds) -> None:
    available = int(limit * part)
    level = next_level("normal", (limit - available) / limit, marks)
    needed = bytes_to_free(limit, available, level, marks)
    assume(needed > 0)
    short = available + needed - 1
    missing = level == "emergency" and short < reserve_for(limit, marks)
    assert missing or (limit - short) / limit >= marks.recovery or limit == 1


def test_at_normal_nothing_is_to_be_freed() -> None:
    assert bytes_to_free(GIB, 0, "normal", DEFAULT) == 0


def test_an_emergency_also_frees_the_reserve() -> None:
    """With marks so high that the recovery mark alone would leave too little."""
    marks = Thresholds(warning=0.97, emergency=0.99, recovery=0.96)
    assert bytes_to_free(GIB, 0, "emergency", marks) == GIB // 8
    assert bytes_to_free(GIB, 0, "warning", marks) < GIB // 8


@pytest.mark.parametrize(("limit", "reserve"), [(2 * GIB, 256 * MIB), (4 * GIB, 512 * MIB), (64 * GIB, 512 * MIB)])
def test_the_reserve_is_an_eighth_of_a_small_limit(limit: int, reserve: int) -> None:
    assert reserve_for(limit, DEFAULT) == reserve


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"warning": 0.9, "emergency": 0.9}, "warning .90.0 %. must be below emergency"),
        ({"recovery": 0.75}, "recovery .75.0 %. must be below warning"),
        ({"emergency": 1.1}, "at most 100 %"),
        ({"recovery": 0.0}, "above 0 %"),
        ({"reserve": -1}, "reserve"),
        ({"warning": float("nan")}, "must be below"),
    ],
)
def test_marks_in_the_wrong_order_are_refused_in_words(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Thresholds(**wrong)  # type: ignore[arg-type]


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Thresholds(warning=0.5, emergency=0.4, recovery=0.6, reserve=-5)
    assert len(caught.value.problems) == 3
