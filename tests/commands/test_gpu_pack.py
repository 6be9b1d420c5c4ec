"""scripts/gpu_pack.py: what is carried to a machine without a network."""

import pytest

from tests.helpers.commands import ROOT


@pytest.fixture
def pack(script):
    return script("gpu_pack")


def test_what_is_carried_is_listed_and_more_than_may_travel_is_refused(pack, tmp_path):
    (tmp_path / "carried" / "wheels").mkdir(parents=True)
    (tmp_path / "carried" / "wheels" / "a-1-py3-none-any.whl").write_bytes(bytes(2**20))
    said = pack.listing(tmp_path / "carried", 2 * 2**20, 4 * 2**20)
    assert said[0].split() == ["1.00", "MiB", "carried/wheels/a-1-py3-none-any.whl"]
    assert said[-1].split() == ["3.00", "MiB", "in", "all,", "of", "4", "MiB"]
    with pytest.raises(pack.Refused, match=r"3\.0 MiB with the tracked files, 2 may travel"):
        pack.listing(tmp_path / "carried", 2 * 2**20, 2 * 2**20)


def test_a_wheel_of_one_kind_of_machine_is_refused(pack):
    pack.refuse_bound(["a-1-py3-none-any.whl", "b-1-py2.py3-none-any.whl"])
    with pytest.raises(pack.Refused, match=r"c-1-cp311-cp311-linux_x86_64\.whl: only for this"):
        pack.refuse_bound(["a-1-py3-none-any.whl", "c-1-cp311-cp311-linux_x86_64.whl"])


def test_every_carried_package_has_a_version(pack):
    """The one that is tested: constraints.txt has each by the name that is asked for."""
    text = (ROOT / "constraints.txt").read_text().replace("_", "-")
    assert [name for name in pack.PACKAGES if f"\n{name}==" not in text] == []


def test_a_checkout_with_changes_is_not_carried(pack, monkeypatch):
    monkeypatch.setattr(pack, "git", lambda *words: " M bench/step.py\n?? new.py\n")
    with pytest.raises(pack.Refused, match="2 files are not as committed"):
        pack.clean_commit()
