"""What two runs are compared by, and a run that stops in its midst."""

from bench.training import trainer

CURVE_KEYS = (
    *("step", "train_loss", "lr", "grad_norm", "val_loss"),
    *("update_rms", "weight_rms", "grad_norms", "attention_max_logit"),
)


def curve(record: dict) -> list[dict]:
    """What of a curve must not depend on when or how often a run was interrupted."""
    return [{k: line[k] for k in CURVE_KEYS if k in line} for line in record["curve"]]


def same_result(a: dict, b: dict) -> bool:
    return (a["val_loss"], a["test_loss"], curve(a)) == (b["val_loss"], b["test_loss"], curve(b))


def stop_at(monkeypatch, step: int, error: BaseException) -> None:
    """Make the run fail once, before its `step`-th step."""
    original = trainer.Trainer.step

    def failing(self, measure_update):
        if self.state["step"] == step:
            monkeypatch.setattr(trainer.Trainer, "step", original)
            raise error
        return original(self, measure_update)

    monkeypatch.setattr(trainer.Trainer, "step", failing)
