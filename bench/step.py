"""Measure the cost of an optimizer's step on a model, without training the model.

python bench/step.py model=gpt2 'optimizers=[adamw,hybrid]'
python bench/step.py 'optimizers=[hybrid,"hybrid qkv=per_head","muon orthogonalizer=cubic5"]'
python bench/step.py -m model=gpt2_nano,vit_nano
"""

import sys

if __name__ == "__main__":
    from bench.processes import foreground

    foreground.begin()

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from bench.processes import foreground, world
from bench.settings import command
from bench.settings.errors import UserError
from bench.settings.schema import CONF
from bench.stepping import settings
from bench.training import sweep


@hydra.main(config_path=str(CONF), config_name="step", version_base="1.3")
def job(cfg: DictConfig) -> None:
    """One benchmark."""
    with sweep.job() as outcome:
        benchmark = settings.settle(cfg, HydraConfig.get())
        from bench.stepping import (
            run,  # imports torch, so only after the settings are checked
        )

        outcome |= run.run(benchmark, sweep.say)


def refuse_lone_optimizer() -> None:
    """End with one line for bench/train.py's optimizer=muon: Hydra's own advice would fail too."""
    for word in sys.argv[1:]:
        key, _, names = word.lstrip("+").partition("=")
        if key == "optimizer":
            print(f"error: {word}: here it is 'optimizers=[{names}]'", file=sys.stderr)
            sys.exit(1)


def main() -> int:
    refuse_lone_optimizer()
    sweep.refuse_missing_plugin()
    try:
        foreground.at_work()
        command.run(job)
    except UserError as error:
        world.tell(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return foreground.INTERRUPTED
    return sweep.exit_status()


if __name__ == "__main__":
    sys.exit(world.leave(main()))
