"""What is not in the set for a GPU."""

import os

import pytest

from tests.conftest import pytest_configure


def test_no_other_test_sees_a_gpu():
    """Not even where there is one: `auto` is then the CPU, in commands too."""
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("asked", "hidden"),
    [("gpu", False), ("gpu and not long", False), ("not long and not gpu", True), ("more", True)],
)
def test_the_set_itself_does(asked, hidden, monkeypatch, pytestconfig):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(pytestconfig.option, "markexpr", asked)
    pytest_configure(pytestconfig)
    assert (os.environ["CUDA_VISIBLE_DEVICES"] == "") == hidden
