"""The orthogonalization laboratory: what each Newton-Schulz method does, and what it costs.

python bench/ortho.py                                    the default cases
python bench/ortho.py shapes=768x3072 dtypes=bf16        one shape, all methods
python bench/ortho.py -m methods=keller,taylor seed=0,1  a sweep
python bench/ortho.py fit=true                           coefficients fitted to a shape
python bench/ortho.py fit=table                          single triples fitted to many shapes
python bench/ortho.py spectra=true                       singular values of a run's momenta
python bench/ortho.py map=true                           where single triples are stable
python bench/ortho.py checks=true                        claims of the literature, measured
"""

import importlib
import sys

if __name__ == "__main__":
    from bench.processes import foreground

    foreground.begin()

import hydra
from omegaconf import DictConfig

from bench.laboratory import settings as ortho_config
from bench.processes import foreground, world
from bench.settings import command
from bench.settings.errors import UserError
from bench.settings.schema import CONF
from bench.training import sweep

WORK = {
    ("fit", True): "bench.laboratory.fitting",
    ("fit", "table"): "bench.laboratory.fit_table",
    ("map", True): "bench.laboratory.stability",
    ("checks", True): "bench.laboratory.statements.run",
    ("spectra", True): "bench.laboratory.momentum_spectra",
}


@hydra.main(config_path=str(CONF), config_name="ortho", version_base="1.3")
def job(cfg: DictConfig) -> None:
    """One laboratory session."""
    with sweep.job() as outcome:
        settings = ortho_config.settle(cfg)
        asked = [
            module for (flag, value), module in WORK.items() if getattr(settings, flag) == value
        ]
        # imports torch, so only after the settings are checked
        work = importlib.import_module(asked[0] if asked else "bench.laboratory.cases")
        work.run(settings, sweep.say)
        outcome["how"] = "finished"


def main() -> int:
    sweep.refuse_missing_plugin()
    try:
        foreground.at_work()
        command.run(job)
    except UserError as error:
        world.tell(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        print("interrupted; the finished records are kept", file=sys.stderr)
        return foreground.INTERRUPTED
    return sweep.exit_status()


if __name__ == "__main__":
    sys.exit(main())
