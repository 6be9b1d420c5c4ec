"""Train one model with one optimizer, or sweep over many; leave one record a run.

python bench/train.py optimizer=muon model=gpt2
python bench/train.py -m optimizer=adamw,muon,hybrid model=gpt2_nano,vit_nano seed=0,1
python bench/train.py model=gpt2 inspect=true
"""

import sys
import traceback

import hydra
from omegaconf import DictConfig

from bench import cell, config, sweep
from bench.errors import UserError


@hydra.main(config_path="../conf", config_name="train", version_base="1.3")
def job(cfg: DictConfig) -> None:
    """One cell. Its failure is noted and never leaves the job, so that a sweep goes on."""
    outcome = {"cell": sweep.overrides(), "how": "failed", "error": None, "record": None}
    try:
        settings = config.settle(cfg)
        outcome["cell"] = cell.name(settings)
        from bench import run  # imports torch: only once the settings are known to be good

        if settings.inspect:
            outcome |= run.inspect(settings, sweep.say)
        else:
            outcome |= run.run(settings, outcome["cell"], sweep.say, wait=sweep.is_sweep())
    except UserError as error:
        outcome["error"] = str(error)
        sweep.say(f"error: {error}")
    except OSError as error:  # a disk that is full, a folder that may not be written
        outcome["error"] = f"{error.strerror or error}: {error.filename or ''}"
        sweep.say(f"error: {outcome['error']}")
    except Exception as error:  # a fault of ours must not end a sweep, nor go unseen
        outcome["error"] = repr(error)
        sweep.say(traceback.format_exc())
    sweep.note(outcome)


def main() -> int:
    try:
        job()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return sweep.exit_status()


if __name__ == "__main__":
    sys.exit(main())
