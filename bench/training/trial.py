"""One forward pass of a user's model before any work: does it fit the data, and does a language
model predict tokens that it has not seen?"""

from typing import Any

import torch
from torch import Tensor, nn

from bench.data.random_batches import RandomBatches
from bench.settings.errors import UserError
from bench.training import randomness

BUILT_IN = ("models.gpt2.build", "models.vit.build")
EXAMPLES = 2
SEEN = 1e-5  # share of the change at changed tokens: above fp32 rounding, below real sight
SMALL = 0.02  # replaces weights that start at zero, which would hide what they pass on


def check(model: nn.Module, name: str, facts: dict[str, Any], sequence_length: int) -> None:
    """Try the model on two examples shaped like the data's, and leave it unchanged.

    name: the settings that chose it. facts: the data's facts that it must fit. Raises UserError if
    it cannot take the examples, gives logits unfit for the loss, or sees the tokens to predict.
    """
    text = "vocab_size" in facts
    batch = RandomBatches("text" if text else "images", sequence_length, facts).batch(EXAMPLES, 0)
    first = sequence_length // 2 | 1  # odd, so that no block of a model's text ends here
    if text:
        ids = batch["input_ids"]
        ids[1] = ids[0]
        ids[1, first:] = (ids[0, first:] + 1) % facts["vocab_size"]
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    output = _output(model, inputs, name)
    logits = getattr(output, "logits", None)
    if logits is None:
        raise UserError(f"{name}: gives no logits, which the loss needs ({type(output).__name__})")
    shape = (EXAMPLES, sequence_length) if text else (EXAMPLES, facts["classes"])
    least = facts["vocab_size"] if text else 0
    if logits.shape[:2] != shape or logits.ndim != (3 if text else 2) or logits.shape[-1] < least:
        needed = (*shape, least) if text else shape
        raise UserError(
            f"{name}: its logits for a batch of {_shapes(inputs)} have the shape "
            f"{tuple(logits.shape)}; the loss needs {needed}"
        )
    if not text:
        return
    change = (logits[1] - logits[0]).float().abs().amax(-1)
    if change[:first].max() > SEEN * change[first:].max():
        raise UserError(
            f"{name}: sees the tokens that it is to predict (its logits change with later tokens); "
            "a causal language model is needed"
        )


@torch.no_grad()
def _output(model: nn.Module, inputs: dict[str, Tensor], name: str) -> Any:
    """The model's output in eval mode; restores its buffers, its mode and the random state."""
    device = next(model.parameters()).device
    before, training = randomness.state(device.type), model.training
    stand_ins = {key: buffer.clone() for key, buffer in model.named_buffers()}
    for key, p in model.named_parameters():
        if not p.any():
            stand_ins[key] = SMALL * torch.randn_like(p)
    try:
        inputs = {key: value.to(device) for key, value in inputs.items()}
        return torch.func.functional_call(model.eval(), stand_ins, (), inputs)
    except Exception as error:  # the model may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        hint = "; try another data.image_size or data.channels" if "pixel_values" in inputs else ""
        raise UserError(
            f"{name}: cannot take a batch of {_shapes(inputs)} ({reason}){hint}"
        ) from error
    finally:
        model.train(training)
        randomness.restore(before)


def _shapes(inputs: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in inputs.items())
