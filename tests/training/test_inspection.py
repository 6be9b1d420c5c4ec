"""`inspect=true` in a few lines, `inspect=full` tensor by tensor: names whole, 80 columns."""

import pytest

from bench.training import inspection, reading
from optimizers.routing import route
from optimizers.state import predicted_bytes
from optimizers.structure import describe
from tests.helpers.commands import TINY, settle
from tests.helpers.zoo import tiny_gpt2


@pytest.fixture
def inspected(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")

    def go(*overrides: str) -> tuple[list[str], list[str]]:
        said: list[str] = []
        settings = settle(*TINY, f"results_dir={tmp_path}", "inspect=true", *overrides)
        assert inspection.run(settings, said.append) == {"how": "inspected"}
        return capsys.readouterr().out.splitlines(), said

    return go


@pytest.mark.parametrize("optimizer", ["hybrid", "muon", "adamw"])
def test_it_is_a_screen_of_few_lines(inspected, optimizer):
    lines, said = inspected(f"optimizer={optimizer}")
    assert len(lines) <= 16 and max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert f"gpt2_nano with optimizer={optimizer}: " in lines[0]
    assert "optimizer state: " in text and "could not be read: nothing" in text
    assert ("Q, K, V with qkv=split: 6 of 32×32, of 2 attentions" in text) == (optimizer != "adamw")
    assert said == ["gpt2_nano: building the model"]  # at once, before what takes long


def test_every_role_is_there_with_what_takes_it(inspected):
    lines, _ = inspected()
    rows = {line.split()[0]: line.split()[1] for line in lines[2:6]}
    assert rows["hidden"] == "Muon"
    assert {rows[r] for r in ("embedding", "position", "vector")} == {"AdamW"}


def test_in_full_every_name_is_whole_and_has_its_reason(inspected):
    lines, _ = inspected("inspect=full")
    assert max(map(len, lines)) <= 80
    names = [line.split(":")[0] for line in lines if line.startswith("transformer.")]
    assert "transformer.h.1.attn.c_attn.weight" in names and len(names) == len(set(names)) == 28
    assert sum(line.startswith("    why: ") for line in lines) == len(names)


def test_what_could_not_be_read_is_named_and_counted():
    settings = settle(*TINY)
    model = tiny_gpt2()
    routing = route(model, settings.optimizer)
    taken = reading.takes(routing.table, None, describe(model))
    odd = [{"name": f"layer.{n}.A", "reason": "no structure found"} for n in range(5)]
    taken |= {"unread": odd}
    notes = list(inspection.notes(settings, taken, predicted_bytes(routing.optimizers)))
    assert notes[-4] == "could not be read: layer.0.A: no structure found"
    assert notes[-1] == "could not be read: 2 more"
