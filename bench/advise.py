"""Advice for one model on one machine: Muon, AdamW or both, at what cost, by which records.

python bench/advise.py model=gpt2 train.batch_size=8 train.sequence_length=1024
python bench/advise.py model=hub model.source=my/config.json train.steps=20000
python bench/advise.py model=my_module:build
"""

import sys

if __name__ == "__main__":
    from bench.processes import foreground

    foreground.begin()

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from bench.advising import settings
from bench.processes import foreground, world
from bench.settings import command
from bench.settings.errors import UserError
from bench.settings.schema import CONF
from bench.training import sweep


@hydra.main(config_path=str(CONF), config_name="advise", version_base="1.3")
def job(cfg: DictConfig) -> None:
    """The advice for one model."""
    with sweep.job() as outcome:
        sweep.say(f"{sweep.overrides()}: reading the settings")
        case = settings.settle(cfg, HydraConfig.get())
        from bench.advising import run  # imports torch, so only after the settings are checked

        outcome |= run.run(case, sweep.say)


def main() -> int:
    sweep.refuse_missing_plugin()
    try:
        foreground.at_work()
        settings.refuse_choices(sys.argv[1:])
        command.run(job)
    except UserError as error:
        world.tell(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        world.tell("interrupted; nothing was written")
        return foreground.INTERRUPTED
    return sweep.exit_status()


if __name__ == "__main__":
    sys.exit(world.leave(main()))
