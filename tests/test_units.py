"""Sizes, durations and shares as people write them, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkit.errors import UnitError
from memkit.units import (
    GIB,
    KIB,
    MIB,
    format_bytes,
    format_seconds,
    format_ttl,
    parse_bytes,
    parse_seconds,
    parse_share,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512MiB", 512 * MIB), ("1.5 GiB", 3 * GIB // 2), ("2GB", 2 * 10**9), ("7", 7), (7, 7), ("1k", KIB), ("0", 0)],
)
def test_sizes_are_read_in_binary_and_decimal_units(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "MiB", "5 parsecs", "-1", "-3MiB", "1.2.3", "nan", True, None, "1 0", [1]])
def test_what_is_no_size_is_an_error_that_shows_it(text):
    with pytest.raises(UnitError, match="not a size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("30s", 30), ("5 min", 300), ("2h", 7200), ("1d", 86400), (2.5, 2.5), ("250ms", 0.25)]
)
def test_durations_are_read_as_seconds(text, expected):
    assert parse_seconds(text) == expected


@pytest.mark.parametrize("text", ["none", "never", "None", None])
def test_never_is_a_duration_without_end(text):
    assert parse_seconds(text) is None


@pytest.mark.parametrize("text", ["-1s", "soon", "inf", "5 MiB", True, []])
def test_what_is_no_duration_is_an_error(text):
    with pytest.raises(UnitError, match="not a duration"):
        parse_seconds(text)


@pytest.mark.parametrize(("text", "expected"), [("75%", 0.75), ("0.75", 0.75), (0.75, 0.75), ("0%", 0), ("100 %", 1)])
def test_shares_are_percentages_or_fractions(text, expected):
    assert parse_share(text) == expected


@pytest.mark.parametrize("text", ["75", 75, "150%", "-5%", "most", True])
def test_what_is_no_share_is_an_error(text):
    with pytest.raises(UnitError, match="not a share"):
        parse_share(text)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (412 * MIB, "412.0 MiB"), (GIB, "1.00 GiB"),
        (2.31 * GIB, "2.31 GiB"), (MIB - 1, "1.0 MiB"), (GIB - 1, "1.00 GiB"), (5000 * GIB, "5000.00 GiB"), (None, "-"),
    ],
)  # fmt: skip
def test_sizes_have_one_decimal_and_two_from_a_gibibyte(size, expected):
    assert format_bytes(size) == expected


def test_deltas_are_signed():
    assert format_bytes(MIB, signed=True) == "+1.0 MiB"
    assert format_bytes(-MIB, signed=True) == "-1.0 MiB"


@pytest.mark.parametrize(("seconds", "expected"), [(18, "0:18"), (440, "7:20"), (7500, "2 h 5 min"), (None, "-")])
def test_durations_are_shown_as_a_clock_would(seconds, expected):
    assert format_seconds(seconds) == expected


@given(st.integers(min_value=0, max_value=2**50))
def test_a_shown_size_reads_back_within_its_rounding(size):
    assert parse_bytes(format_bytes(size)) == pytest.approx(size, rel=0.06)


@given(st.sampled_from([0.5, 1, 30, 60, 90, 300, 3600, 5400, 86400]))
def test_a_shown_ttl_reads_back_exactly(seconds):
    assert parse_seconds(format_ttl(seconds)) == seconds
