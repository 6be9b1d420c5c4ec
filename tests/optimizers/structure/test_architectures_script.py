"""scripts/architectures.py on a few types: built, read, checked by gradients, trained, told."""

import json
import runpy

import pytest

from tests.helpers.commands import ROOT

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _beside_its_module(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")


TYPES = ["llama", "gpt_oss", "bert", "vit", "qwen3_5"]


def test_a_few_types_are_read_and_a_second_run_does_nothing_twice(tmp_path, capsys):
    main = runpy.run_path(str(ROOT / "scripts" / "architectures.py"))["main"]
    done, table = tmp_path / "done.jsonl", tmp_path / "table.md"
    options = ["--done", str(done), "--table", str(table), "--types", *TYPES]
    main(options)
    found = {r["type"]: r for r in map(json.loads, done.read_text().splitlines())}
    assert sorted(found) == sorted(TYPES)
    assert {t: r["status"] for t, r in found.items()} == {
        "llama": "read whole",
        "gpt_oss": "kept whole",
        "bert": "read whole",
        "vit": "read whole",
        "qwen3_5": "read whole",
    }
    for result in found.values():
        assert set(result["steps"].values()) == {"ok"} and not result["checked"]["differ"]
    assert found["llama"]["checked"]["agree"] and found["vit"]["checked"]["agree"]
    assert "Of 5 types: 4 read whole, 1 kept whole." in table.read_text()
    assert "alternate rows" in table.read_text()
    first = table.read_text()
    capsys.readouterr()
    main(options)
    assert capsys.readouterr().out == "" and table.read_text() == first


def test_a_type_has_a_layer_of_every_kind_and_what_cannot_be_trained_is_said(tmp_path):
    """qwen3_5's attention is in every fourth layer, pp_lcnet's logits have another name."""
    main = runpy.run_path(str(ROOT / "scripts" / "architectures.py"))["main"]
    done, table = tmp_path / "done.jsonl", tmp_path / "table.md"
    types = ["qwen3_5", "pp_lcnet", "gemma4_assistant"]
    main(["--done", str(done), "--table", str(table), "--types", *types])
    found = {r["type"]: r for r in map(json.loads, done.read_text().splitlines())}
    assert found["qwen3_5"]["heads"] == {"q": 4, "k": 2, "v": 2}
    steps = found["pp_lcnet"]["steps"]
    assert steps["hybrid"] == steps["muon"] == "ok"
    assert steps["per-head"].startswith("refused: qkv=per_head: no attention was seen")
    assert "no model by itself" in found["gemma4_assistant"]["why"]


def test_a_type_that_takes_too_long_is_told_so(tmp_path):
    main = runpy.run_path(str(ROOT / "scripts" / "architectures.py"))["main"]
    done, table = tmp_path / "done.jsonl", tmp_path / "table.md"
    main(["--done", str(done), "--table", str(table), "--types", "llama", "--limit", "0"])
    assert json.loads(done.read_text())["why"] == "over 0 s"
    assert "## Failed (1)" in table.read_text()
