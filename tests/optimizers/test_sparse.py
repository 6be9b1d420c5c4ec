"""hybrid_sparse: the common suite, what is refused, and sparse gradients through the trainer."""

import pytest
import torch

from bench.data import batches
from bench.measuring.reference import Reference
from bench.settings.errors import UserError
from models import gpt2
from optimizers.routing import route
from optimizers.sparse import sparse_parameters
from optimizers.state import state_bytes
from tests.helpers.runs import same_result, stop_at
from tests.helpers.suite import (  # noqa: F401 - run here with the fixtures below
    test_a_saved_state_goes_on_as_if_never_stopped,
    test_a_schedule_multiplies_the_base_rates,
    test_the_partition_is_exact,
    test_the_rates_are_the_rules_times_the_scales,
    test_the_same_start_gives_the_same_bits,
    test_the_table_tells_what_the_optimizers_hold,
    test_twenty_steps_learn_and_stay_finite,
    test_zero_grad_forgets_the_gradients,
)
from tests.helpers.zoo import (
    HEADS,
    POSITIONS,
    VOCABULARY,
    WIDTH,
    batch,
    settings,
    tiny_gpt2,
    tiny_vit,
)
from tests.helpers.zoo import train as learn

TABLE = "transformer.wte.weight"
OURS = ("model=gpt2_nano_sparse", "optimizer=hybrid_sparse")
DENSE = ("model.sparse_embedding=false", "optimizer.roles.embedding._target_=torch.optim.Adam")


def untied_gpt2(sparse=True):
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "positions": POSITIONS, "layers": 2}
    return gpt2.build(**sizes, heads=HEADS, width=WIDTH, tied=False, sparse_embedding=sparse)


@pytest.fixture
def optimizer():
    return "hybrid_sparse"


@pytest.fixture(params=[untied_gpt2, tiny_vit])
def build(request):
    return request.param


# optimizers ----------------------------------------------------------------------------------


def test_state_bytes_are_as_predicted():
    model = untied_gpt2()
    routing = route(model, settings("hybrid_sparse"))
    before = state_bytes(routing.optimizers)["predicted"]
    learn(model, routing, 1)
    found = state_bytes(routing.optimizers)
    assert found["total"] == found["predicted"] == before
    assert found["by_optimizer"]["SparseAdam"] == 2 * 4 * VOCABULARY * WIDTH


def test_only_rows_of_tokens_in_the_batch_move():
    model = untied_gpt2()
    routing = route(model, settings("hybrid_sparse"))
    table = model.get_parameter(TABLE)
    seen = torch.zeros(VOCABULARY, dtype=torch.bool)
    seen[batch(model)["input_ids"][:, :-1].unique()] = True  # the last token predicts nothing
    before = table.detach().clone()
    learn(model, routing, 3)
    assert 0 < seen.sum() < VOCABULARY
    assert torch.equal((table != before).any(1), seen)


def hand_tied_gpt2():
    model = tiny_gpt2()
    model.transformer.wte.sparse = True
    return model


@pytest.mark.parametrize(
    ("build", "sparse"),
    [(untied_gpt2, {TABLE}), (hand_tied_gpt2, set()), (lambda: untied_gpt2(False), set())],
)
def test_which_gradients_are_sparse(build, sparse):
    model = build()
    ids = sparse_parameters(model)
    assert {name for name, p in model.named_parameters() if id(p) in ids} == sparse
    model(**batch(model)).loss.backward()
    assert {name for name, p in model.named_parameters() if p.grad.is_sparse} == sparse


@pytest.mark.parametrize("target", ["torch.optim.SGD", "torch.optim.Adagrad"])
def test_what_else_takes_a_sparse_gradient(target):
    block = settings("hybrid_sparse")
    block["roles"]["embedding"] = {"_target_": target, "lr": 0.01}
    model = untied_gpt2()
    losses = learn(model, route(model, block), 5)
    assert losses[-1] < losses[0]


def test_the_reference_gives_adamw_the_whole_gradient():
    p = torch.nn.Parameter(torch.ones(4, 2))
    p.grad = torch.sparse_coo_tensor([[1, 1]], [[1.0, 1.0], [1.0, 1.0]], (4, 2))
    reference = Reference([p], "cpu", 2, [])
    reference.time(1.0, 1.0)
    (copy,) = reference.adamw.param_groups[0]["params"]
    assert torch.equal(copy.grad, torch.tensor([[0.0, 0.0], [2.0, 2.0], [0.0, 0.0], [0.0, 0.0]]))


# whole runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optimizer=hybrid_sparse"], ["SparseAdam", TABLE, "dense", "gpt2_nano_sparse"]),
        ([*OURS, "model.sparse_embedding=false"], ["SparseAdam", TABLE, "dense"]),
        ([*OURS, "model.tied=true"], ["model.sparse_embedding=true", "model.tied=false"]),
        (["model=gpt2_nano_sparse"], ["AdamW", TABLE, "sparse", "hybrid_sparse"]),
        (["model=gpt2_nano_sparse", "optimizer=muon"], ["Muon", TABLE, "sparse"]),
    ],
)
def test_a_model_that_does_not_fit_is_refused_in_one_line(train, tmp_path, overrides, words):
    with pytest.raises(UserError) as caught:
        train(*overrides)
    assert all(word in str(caught.value) for word in words), caught.value
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.glob("runs/*/metrics.jsonl"))


@pytest.fixture
def every_token(monkeypatch):
    """Each step's batch has every token of the vocabulary just once."""

    def tokens(self, step, examples):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randperm(self.vocab_size, generator=generator).view(examples, -1)
        return {"input_ids": ids, "labels": ids}

    monkeypatch.setattr(batches.Tokens, "batch", tokens)


def series(record, key):
    return [line[key] for line in record["curve"] if key in line]


@pytest.mark.more
def test_with_every_row_in_the_batch_it_equals_a_dense_run(train, every_token):
    """SparseAdam is Adam on the rows of the batch, but for the place of epsilon."""
    sizes = ["optimizer.roles.embedding.eps=1e-16", "schedule=constant"]
    sizes += ["train.sequence_length=128", "train.batch_size=8", "train.accumulate=4"]
    sizes += ["train.clip_norm=0.1"]
    _, ours, _ = train(*OURS, *sizes)
    _, dense, _ = train(*OURS, *DENSE, *sizes)
    assert ours["overhead"]["n"] == 2
    for key in ("train_loss", "grad_norm", "val_loss"):
        assert series(ours, key) == pytest.approx(series(dense, key), rel=1e-5)
    for a, b in zip(series(ours, "update_rms"), series(dense, "update_rms"), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    assert min(series(ours, "grad_norm")) > 0.1  # so that it was clipped


@pytest.mark.more
def test_with_rows_left_out_it_equals_a_dense_run_up_to_the_second_step(train):
    """At first Adam also leaves rows without gradient where they are; then it carries them on."""
    sizes = ["train.batch_size=4", "schedule=constant", "train.clip_norm=0.1"]
    sizes += ["optimizer.roles.embedding.eps=1e-16"]  # its place is not the same in both
    _, ours, _ = train(*OURS, *sizes)
    _, dense, _ = train(*OURS, *DENSE, *sizes)
    for key in ("train_loss", "grad_norm"):
        assert series(ours, key)[:2] == pytest.approx(series(dense, key)[:2])
    a, b = (series(record, "update_rms")[-1]["embedding"] for record in (ours, dense))
    assert a < 0.9 * b


def test_a_run_that_failed_goes_on_to_the_same_end(train, tmp_path, monkeypatch):
    overrides = [*OURS, "train.accumulate=2"]
    _, whole, _ = train(*overrides, results=tmp_path / "whole")
    state = whole["optimizer_state_bytes"]
    assert state["total"] == state["predicted"]
    stop_at(monkeypatch, 5, RuntimeError("the machine is on fire"))
    assert train(*overrides)[0]["how"] == "failed"
    outcome, resumed, said = train(*overrides)
    assert outcome["how"] == "finished" and any("from step 4" in line for line in said)
    assert same_result(whole, resumed)
