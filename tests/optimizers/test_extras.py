"""An optimizer of a package that is not there: what to do is said in a line."""

import sys

import pytest

from optimizers import extras
from optimizers.routing import locate


@pytest.fixture
def without_heavyball(monkeypatch):
    monkeypatch.setitem(sys.modules, "heavyball", None)


def said(target):
    with pytest.raises(ValueError) as caught:
        locate(target)
    (line,) = str(caught.value).splitlines()
    return line


def test_in_the_checkout_its_extra_is_named(without_heavyball):
    assert said("heavyball.SOAP").endswith(
        "the package heavyball is not installed; pip install -e '.[peers]'"
    )
    assert said("nowhere.SOAP").endswith(
        "No module named 'nowhere'; must be a class as torch.optim.AdamW"
    )


@pytest.mark.parametrize("text", [None, "", "[project]\nname = 'other'\n"])
def test_elsewhere_it_is_named_without_one(text, without_heavyball, tmp_path, monkeypatch):
    """Copied to where there is no pyproject.toml, or that of another project."""
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.setattr(extras, "PYPROJECT", tmp_path / "pyproject.toml")
    line = said("heavyball.SOAP")
    assert line.startswith("optimizer _target_=heavyball.SOAP: ") and "heavyball" in line[30:]
