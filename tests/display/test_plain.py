"""A terminal without the signs that we write, such as PYTHONIOENCODING=ascii, ends no run."""

import io

import pytest

from bench.display import plain


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_signs_that_a_terminal_lacks_are_written_plainly(encoding, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding=encoding))
    plain.set_up()
    print("–0.3 … −0.1 ≤ 字", flush=True)
    assert raw.getvalue() == b"-0.3 ... -0.1 <= ?\n"
