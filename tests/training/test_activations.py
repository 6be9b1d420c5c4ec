"""A batch that cannot fit is refused before work, by what one and two examples keep."""

import copy
from functools import partial

import pytest
import torch

from bench.data.random_batches import RandomBatches
from bench.measuring import meter
from bench.processes.world import World
from bench.settings.errors import UserError
from bench.training import activations, loss
from tests.helpers.passes import IMAGES, Counter, images, text, train


@pytest.mark.parametrize("build", [text, images])
def test_what_a_batch_keeps_grows_by_as_much_for_each_example(build):
    model, source = build()
    one, two, eight = (
        activations.kept(model, source.batch(n, 0), train()) for n in (1, 2, 8)
    )  # fmt: skip
    assert two > one and eight == one + 7 * (two - one)


@pytest.mark.parametrize("build", [text, images])
def test_it_is_no_more_than_what_a_forward_pass_holds(build):
    model, source = build()
    few, many = (
        meter.held("cpu", lambda n=n: loss.of(model, source.batch(n, 0))).peak for n in (4, 12)
    )
    kept = [activations.kept(model, source.batch(n, 0), train()) for n in (4, 12)]
    assert 0.3 * (many - few) < kept[1] - kept[0] <= many - few


def test_the_model_is_left_as_it_was():
    model, source = Counter(), RandomBatches("images", 0, IMAGES)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert activations.kept(model, source.batch(1, 0), train()) > 0
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def check(most, there, monkeypatch, *overrides, **options):
    model, source = text()
    monkeypatch.setattr(meter, "total", lambda device: there)
    batch = partial(source.batch, seed=0)
    activations.check(model, batch, most, f"x={most}", train(*overrides), **options)


def test_what_does_not_fit_is_a_line_with_what_would(monkeypatch):
    model, source = text()
    one, two = (activations.kept(model, source.batch(n, 0), train()) for n in (1, 2))
    there = 10 * (two - one)
    check(10, there, monkeypatch)
    with pytest.raises(UserError, match=r"^x=11: .* in which fewer than 11 fit$") as caught:
        check(11, there, monkeypatch)
    assert "\n" not in str(caught.value)
    check(11, there, monkeypatch, world=World("ddp", size=2))
    with pytest.raises(UserError, match="fewer than 21 fit"):
        check(22, there, monkeypatch, world=World("ddp", size=2))


def test_where_it_cannot_be_known_the_run_goes_on(monkeypatch):
    monkeypatch.setattr("bench.settings.config.has_compiler", lambda: True)
    check(11, 1, monkeypatch, "train.compile=true")
    monkeypatch.setattr(loss, "of", None)
    check(11, 1, monkeypatch)


@pytest.mark.parametrize(
    ("own", "file"),
    [
        ("0::/a/b\n", "a/memory.max"),
        ("0::/\n", "memory.max"),
        ("1:cpu:/c\n4:memory:/c\n0::/\n", "memory/c/memory.limit_in_bytes"),
        ("7:cpu,memory:/not/seen/here\n", "memory/memory.limit_in_bytes"),
    ],
)
def test_the_limit_of_a_container_counts(own, file, tmp_path):
    for name, words in {"memory/c/memory.max": "1", "a/b/memory.max": "max", file: "12345"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{words}\n")
    (tmp_path / "own").write_text(own)
    assert meter._limits(tmp_path / "own", tmp_path) == [12345]
    assert meter._limits(tmp_path / "none", tmp_path) == []
