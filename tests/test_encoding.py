"""Bytes are judged in pieces; where a piece ends decides nothing."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastsft.inputs import encoding
from fastsft.inputs.encoding import escape_line_separators, is_utf8

LINES = st.lists(st.text(st.sampled_from("ab é\u00a8\u00a9\u0085\u2028\u2029\u2014数😀")), max_size=12)


@pytest.fixture(autouse=True, params=["python", "polars"])
def small_pieces(monkeypatch, request):
    monkeypatch.setattr(encoding, "_CHECKED_NBYTES", 8)
    monkeypatch.setattr(encoding, "_WINDOW_NBYTES", 5)
    if request.param == "python":  # whether this process has imported Polars is for other tests to say
        monkeypatch.setattr(encoding, "_polars_decodes", encoding._python_decodes)
    else:
        monkeypatch.setattr(encoding, "_to_decode_nbytes", 0)
    monkeypatch.setattr(encoding, "_LOOKED_AT_FIRST", {"python": 100, "polars": 0}[request.param])


@given(lines=LINES, position=st.integers(0, 60), byte=st.integers(0, 255))
@settings(deadline=None)
def test_utf8_is_what_python_decodes(lines, position, byte):
    data = "\n".join(lines).encode()
    broken = data[:position] + bytes([byte]) + data[position + 1 :]

    assert is_utf8(data)
    assert is_utf8(broken) == (broken.decode("utf-8", "replace").encode() == broken)


@given(lines=LINES)
@example(lines=["\u2028"])
@example(lines=["\u2029"])
@example(lines=["\u0085"])
@settings(deadline=None)
def test_line_ends_are_escaped_wherever_they_are(lines):
    text = "\n".join(lines)

    escaped = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\u0085", "\\u0085")
    assert escape_line_separators(text.encode()) == escaped.encode()
