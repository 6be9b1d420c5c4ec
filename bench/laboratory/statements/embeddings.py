"""The statement on embeddings: the share of a table's rows that a step changes, on real text."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor

from bench.data import batches
from bench.laboratory.statements import updates
from bench.laboratory.statements.check import NOTES_A, Check, verdict
from bench.training import loss
from models import gpt2

DATA, TOKENIZER = Path(__file__).parents[3] / "conf/data/sotu.yaml", "sotu4096"
SEQUENCE, SEQUENCES, STEPS = 128, (8, 64), 5  # tokens, sequences per step, steps
HALF = 0.5  # of the rows: from this share on an update is not sparse


def checks(seed: int) -> Iterator[Check]:
    yield embedding_updates_sparse(seed)


def embedding_updates_sparse(seed: int) -> Check:
    """For a table that is also the head and for one that is not, with small and large batches."""
    block = OmegaConf.to_container(OmegaConf.load(DATA))
    assert isinstance(block, dict)
    text = batches.load(block, seed=seed, sequence_length=SEQUENCE, tokenizer=TOKENIZER)
    assert isinstance(text, batches.Tokens)
    moved, figures = [], []
    for tied, examples in product((False, True), SEQUENCES):
        gradient, update = reached(text, tied, examples, seed)
        moved.append(update)
        case = f"{'tied' if tied else 'untied'}, {examples * SEQUENCE:,} tokens a step"
        figures.append(f"{case}: {gradient:.0%} by the gradient, {update:.0%} by the update")
    return Check(
        name="embedding_updates_sparse",
        statement="updates of embeddings are sparse",
        value=min(moved),
        low=min(moved),
        high=max(moved),
        n=len(moved),
        unit="share of the table's rows that AdamW's update moves: the least, range over cases",
        verdict=verdict(max(moved) < HALF, min(moved) >= HALF),
        condition=f"GPT-2 with a table of {text.vocab_size:,} rows, rows reached at step {STEPS}; "
        f"{'; '.join(figures)}; momentum moves rows of earlier steps too, and weight decay, here "
        f"none, would move all; confirmed if below {HALF:.0%} in every case, refuted if in none",
        source=NOTES_A,
    )


def reached(text: batches.Tokens, tied: bool, examples: int, seed: int) -> tuple[float, float]:
    """The shares of the token table's rows in AdamW's last gradient and its last update."""
    torch.manual_seed(seed)
    model = gpt2.build(
        vocab_size=text.vocab_size, tied=tied, layers=1, heads=2, width=64, positions=SEQUENCE
    )
    table = model.transformer.wte.weight
    optimizer = updates.adamw(list(model.parameters()), lr=1e-3, weight_decay=0.0)
    for step in range(STEPS):
        before = table.detach().clone()
        model.zero_grad()
        loss.of(model, text.batch(step, examples))[0].backward()
        optimizer.step()
    assert table.grad is not None
    return rows(table.grad), rows(table.detach() - before)


def rows(matrix: Tensor) -> float:
    """The share of rows with any nonzero number."""
    return float((matrix != 0).any(1).float().mean())
