"""An integer version of the numbers that training computes; runs of two versions do not compare.

A change, beyond rounding, to any number that training computes (an update, a loss, the order of the
data, initial weights) needs a new line in CHANGES in the same commit. A test notices most such
changes.
"""

CHANGES = {
    1: "as in the first published records",
    2: "the loss of every source is next-token cross-entropy from logits, without a model's own "
    "terms; a parameter without a gradient stays as it is; the exact method works in the dtype of "
    "gradients; what no product reads and nothing explains has no decay (gpt2, vit: the same bits)",
    3: "evaluations read examples spread evenly over the whole part, the last one and the test "
    "more of them (weights of language models: the same bits); Fashion-MNIST has 20,000 training "
    "images instead of 10,000",
}
MATHEMATICS = max(CHANGES)


def of(record: dict) -> int:
    """The version of a record; records made before the key existed have version 1."""
    return record.get("mathematics", 1)
