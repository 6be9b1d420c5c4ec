"""Train one model with one optimizer, or sweep over many; write one record per run.

python bench/train.py optimizer=muon model=gpt2
python bench/train.py -m optimizer=adamw,muon,hybrid model=gpt2_nano,vit_nano seed=0,1
python bench/train.py model=gpt2 inspect=true
python bench/train.py experiment=optimizers
"""

import sys
from functools import partial

if __name__ == "__main__":
    from bench.processes import foreground

    foreground.begin()

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from bench.processes import foreground, world
from bench.records import cell, initial
from bench.settings import command, config
from bench.settings.errors import UserError
from bench.settings.schema import CONF
from bench.studies import protocol, request
from bench.training import sweep, telling


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def job(cfg: DictConfig) -> float | None:
    """One cell; its loss, for a sweeper that searches."""
    with sweep.job(told=True) as outcome:
        config.refuse_lists(HydraConfig.get().overrides.task)
        settings = initial.settled(config.settle(cfg))
        outcome["cell"] = cell.name(settings)
        sweep.check()
        # imports torch, so only after the settings are checked
        from bench.training import inspection, run

        swept = telling.pace if sweep.is_sweep() else None
        if settings.inspect:
            outcome |= inspection.run(settings, sweep.say)
        else:
            outcome |= run.run(settings, outcome["cell"], sweep.say, swept)
    return outcome.get("loss")


def main() -> int:
    sweep.refuse_missing_plugin()
    try:
        foreground.at_work()
        command.check(sys.argv[1:])
        if request.asked(sys.argv[1:]):
            protocol.run(sys.argv[1:], partial(command.run, job), world.tell)
        else:
            command.run(job)
    except UserError as error:
        world.tell(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        world.tell("interrupted; run the same command again to resume from the last checkpoint")
        return foreground.INTERRUPTED
    return sweep.exit_status()


if __name__ == "__main__":
    sys.exit(world.leave(main()))
