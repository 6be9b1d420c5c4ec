"""The laboratory's settings: single values, lists, triples, and mistakes in one line."""

import pytest
from hydra.errors import ConfigCompositionException

from bench.laboratory import settings
from bench.settings.errors import UserError
from optimizers.coefficients import KELLER, per_step
from tests.helpers.laboratory import settle


def test_one_value_may_stand_for_a_list():
    one = settle("methods=keller", "shapes=8x16", "steps=5", "dtypes=bf16", "layers=3")
    many = settle("methods=[keller]", "shapes=[8x16]", "steps=[5]", "dtypes=[bf16]", "layers=[3]")
    assert one == many and one.shapes == [(8, 16)] and one.steps == [5]


def test_methods_are_sets_files_triples_or_triples_a_step():
    found = settle("methods=[keller,[2,-1.5,0.5],[[4,-6,2.5],[2,-1.5,0.5]]]").methods
    assert [m.triples(2) for m in found] == [
        [KELLER] * 2,
        [(2.0, -1.5, 0.5)] * 2,
        [(4.0, -6.0, 2.5), (2.0, -1.5, 0.5)],
    ]
    assert found[1].name == "2_-1.5_0.5" and found[2].name.startswith("triples_")
    (bare,) = settle("methods=[3.4445,-4.775,2.0315]").methods
    assert bare.triples(1) == per_step("keller", 1)


def test_a_file_of_conf_orthogonalizer_is_a_method(monkeypatch, tmp_path):
    (tmp_path / "orthogonalizer").mkdir()
    (tmp_path / "orthogonalizer" / "mine.yaml").write_text("coefficients: [[2, -1.5, 0.5]]\n")
    monkeypatch.setattr(settings, "CONF", tmp_path)
    assert settings.method("mine").triples(2) == [(2, -1.5, 0.5)] * 2


def test_sources_have_numbers():
    found = settle("sources=[gaussian,condition,low_rank:0.5,log_uniform:100]").sources
    assert [str(s) for s in found] == [
        "gaussian",
        "condition:1e+06",
        "low_rank:0.5",
        "log_uniform:100",
    ]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("methods=kellr", ["methods=kellr", "polar_express", "[a, b, c]"]),
        ("methods=exact", ["methods=exact", "forms=exact"]),
        ("methods=[[1,2]]", ["methods=[1, 2]", "[a, b, c]"]),
        ("methods=[[2,-1.5,.nan]]", ["methods=", "triple"]),
        ("methods=[[2,-1.5,abc]]", ["methods=", "triple"]),
        ("methods=[]", ["methods=[]", "at least one"]),
        ("methods=null", ["methods=", "at least one"]),
        ("shapes=0x5", ["shapes=0x5", "at least 2"]),
        ("shapes=5x0", ["shapes=5x0", "at least 2"]),
        ("shapes=-5x5", ["shapes=-5x5", "rows x columns"]),
        ("shapes=64", ["shapes=64", "rows x columns"]),
        ("shapes=100000x100000", ["shapes=100000x100000", "16,384"]),
        ("steps=0", ["steps=0", "at least 1"]),
        ("steps=[3,2.5]", ["steps=2.5", "whole number"]),
        ("steps=true", ["steps=True", "whole number"]),
        ("dtypes=fp8", ["dtypes=fp8", "fp64, fp32, bf16, fp16"]),
        ("forms=svd", ["forms=svd", "newton_schulz", "exact"]),
        ("sources=uniform", ["sources=uniform", "gaussian", "log_uniform"]),
        ("sources=condition:x", ["sources=condition:x", "number above 1"]),
        ("sources=low_rank:2", ["sources=low_rank:2", "at most 1"]),
        ("sources=gaussian:2", ["sources=gaussian:2", "gaussian"]),
        ("roles=hiden", ["roles=hiden", "hidden"]),
        ("layers=-1", ["layers=-1", "at least 0"]),
        ("samples=0", ["samples=0", "at least 1"]),
        ("seed=-1", ["seed=-1", "from 0"]),
        ("+shape=2x2", ["shape", "no such setting", "shapes"]),
        ("~steps", ["steps", "removed"]),
        ("fit=true checks=true", ["fit=true checks=true", "one of them"]),
    ],
)
def test_a_mistake_names_the_setting_and_what_is_accepted(override, words):
    with pytest.raises(UserError) as caught:
        settle(*override.split())
    assert all(word in str(caught.value) for word in words), caught.value
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize("override", ["sample=3", "seed=x", "pictures=maybe"])
def test_what_hydra_finds_it_says_in_its_own_words(override):
    with pytest.raises(ConfigCompositionException) as caught:
        settle(override)
    assert override.split("=")[0] in f"{caught.value} {caught.value.__cause__}"
