"""What a run learnt and forgot: its test losses at its start and end, also on other data."""

from typing import Any

from bench.settings.schema import Settings
from bench.training import prepare
from bench.training.trainer import Trainer


def measured(trainer: Trainer, settings: Settings, other: Any) -> dict[str, float]:
    """The losses by their names in the record; none without other data.

    Those at the start are of the model built again, which follows from the settings alone: they are
    the same for a run that was interrupted. None of it counts in the run's time or memory.
    """
    if other is None:
        return {}
    trainer.memory.pause()
    begun = prepare.model(settings, trainer.data).eval()
    start, _ = trainer.evaluation.of("test", model=begun)
    before, _ = trainer.evaluation.of("test", model=begun, data=other)
    after, _ = trainer.evaluation.of("test", data=other)
    del begun
    trainer.memory.resume()
    return {
        "test_loss_start": start,
        "other_test_loss_start": before,
        "other_test_loss": after,
        "forgotten": after - before,
    }
