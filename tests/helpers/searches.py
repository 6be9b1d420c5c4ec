"""A study that searches, with two arms and one that repeats the first."""

from bench.studies import study

BLOCK = {
    "question": "?",
    "baseline": "a",
    "conditions": {"short": ["train.steps=20"], "long": ["train.steps=80"]},
    "arms": {
        "a": ["optimizer=adamw"],
        "b": ["optimizer=hybrid"],
        "again": ["optimizer=adamw"],
    },
    "rates_of": {"again": "a"},
    "search": {
        "trials": 3,
        "pilot_seed": 7,
        "pilot": {"rate": [0.5, 1, 2], "relative": [1, 4]},
        "widths": {"rate": 8, "relative": 16, "averaging": 4, "decay": 16, "warmup": 8},
        "centres": {
            "a": {"rate": 1, "embedding": 1, "beta2": 0.05, "decay": 0.1, "warmup": 0.1},
            "b": {"rate": 1, "auxiliary": 1, "momentum": 0.05, "decay": 0.1, "warmup": 0.1},
        },
        "carry": {"long": {"source": "short", "tries": [[1, 1], [2, 0.5]]}},
        "other_seeds": {"again": 1000},
    },
    "tune_seeds": [100, 101],
    "final_seeds": [0, 1],
}


def searched(**changes):
    return study.parse("s", BLOCK | {"search": BLOCK["search"] | changes})
