"""Made-up evidence, times and records for advice."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bench.advising import settings
from bench.advising.evidence import Evidence, Setting
from bench.advising.measure import Measured
from bench.records import record
from bench.stepping.summary import AGAIN
from bench.studies import study
from tests.helpers import fake_results
from tests.helpers.commands import ROOT

HERE = Setting("text", "mine", 10_000_000, 8_192, 20_000, "cpu", "Imagined Processor")
SMALL = [
    *("model.layers=2", "model.width=32", "model.heads=4", "train.device=cpu"),
    *("train.sequence_length=32", "train.batch_size=4", "train.precision=fp32"),
]


def settle(*overrides: str) -> settings.Case:
    """The case that a command line gives."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("advise", overrides=list(overrides), return_hydra_config=True)
        own = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        return settings.settle(own, cfg.hydra)


def evidence(
    *shares: float | None, at: Setting = HERE, doubts: tuple[str, ...] = (), arm: str = "hybrid"
) -> Evidence:
    return Evidence("made/up", arm, at, dict(enumerate(shares)), list(doubts))


def measured(step: dict[str, float], units: tuple[int, ...] = (256, 512, 1024)) -> Measured:
    """Times of five rounds that hardly differ; step: ms by label, forward and backward 1 ms a
    unit; state: AdamW's 8 bytes a parameter, of others 6."""
    rounds, others = (0.98, 0.99, 1.0, 1.01, 1.02), (1.0, 1.02, 0.99, 0.98, 1.01)
    times = {u: [u * r for r in rounds] for u in units}
    labels = step | {AGAIN: step["adamw"]}
    times |= {label: [ms * r for r in others] for label, ms in labels.items()}
    times[AGAIN] = [step["adamw"] * r for r in rounds]
    state = {label: 8000 if label.startswith("adamw") else 6000 for label in labels}
    held = {units[0]: 10_000, units[-1]: 40_000}
    return Measured(1000, 4000, times, state, dict.fromkeys(labels, 100), held, {}, {})


def own_run(folder: Path, optimizer: str, seed: int, rate: float, loss: float, **more) -> None:
    """A run of nobody's study in results/runs."""
    fake = fake_results.one(study.load("optimizers"), "final", "language", optimizer, seed, rate)
    last = fake["steps"]
    curve = [{"step": last // 2, "val_loss": loss + 1}, {"step": last, "val_loss": loss}]
    name = f"{optimizer}-s{seed}-{rate:g}"
    fake |= dict.fromkeys(("experiment", "stage", "condition", "arm"))
    fake |= {"cell": name, "val_loss": loss, "test_loss": loss, "curve": curve, "data": "fake"}
    fake["config"] = fake["config"] | {"optimizer": {"name": optimizer, "lr_scale": rate}}
    fake |= more
    (folder / "runs" / name).mkdir(parents=True)
    record.write_json(folder / "runs" / name / "record.json", fake)
