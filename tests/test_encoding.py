"""Bytes are judged in pieces; where a piece ends decides nothing."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastsft.inputs import encoding
from fastsft.inputs.encoding import escape_line_separators, is_utf8

LINES = st.lists(st.text(st.sampled_from("ab é\u00a8\u00a9\u0085\u2028\u2029\u2014数😀")), max_size=12)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(encoding, "_CHECKED_NBYTES", 8)
    monkeypatch.setattr(encoding, "_WINDOW_NBYTES", 5)
    monkeypatch.setattr(encoding, "_LOOKED_AT_FIRST", 1)


@given(lines=LINES, position=st.integers(0, 60), byte=st.integers(0, 255), by_polars=st.booleans())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_utf8_is_what_python_decodes(lines, position, byte, by_polars):
    data = "\n".join(lines).encode()
    broken = data[:position] + bytes([byte]) + data[position + 1 :]

    assert is_utf8(data, by_polars=by_polars)
    assert is_utf8(broken, by_polars=by_polars) == (broken.decode("utf-8", "replace").encode() == broken)


@given(lines=LINES, by_polars=st.booleans())
@example(lines=["\u2028"], by_polars=False)
@example(lines=["\u2029"], by_polars=True)
@example(lines=["\u0085"], by_polars=False)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_line_ends_are_escaped_wherever_they_are(lines, by_polars):
    text = "\n".join(lines)

    escaped = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\u0085", "\\u0085")
    assert escape_line_separators(text.encode(), by_polars=by_polars) == escaped.encode()
