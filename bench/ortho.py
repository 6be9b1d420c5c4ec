"""The orthogonalization laboratory: what each Newton-Schulz method does, and what it costs.

python bench/ortho.py                                    the default cases
python bench/ortho.py shapes=768x3072 dtypes=bf16        one shape, all methods
python bench/ortho.py -m methods=keller,taylor seed=0,1  a sweep
python bench/ortho.py fit=true                           coefficients fitted to a shape
python bench/ortho.py map=true                           where single triples are stable
python bench/ortho.py checks=true                        claims of the literature, measured
"""

import importlib
import sys
import traceback

import hydra
from omegaconf import DictConfig

from bench import ortho_config, sweep
from bench.errors import UserError

WORK = {"fit": "bench.fitting", "map": "bench.stability", "checks": "bench.seed_checks"}


@hydra.main(config_path="../conf", config_name="ortho", version_base="1.3")
def job(cfg: DictConfig) -> None:
    """One laboratory session. Its failure never leaves the job, so that a sweep goes on."""
    try:
        settings = ortho_config.settle(cfg)
        asked = [module for flag, module in WORK.items() if getattr(settings, flag)]
        # imports torch: only once the settings are known to be good
        work = importlib.import_module(asked[0] if asked else "bench.laboratory")
        work.run(settings, sweep.say)
        return
    except UserError as error:
        message = str(error)
    except OSError as error:  # a disk that is full, a folder that may not be written
        message = f"{error.strerror or error}: {error.filename or ''}"
    except Exception as error:  # a fault of ours must not end a sweep, nor go unseen
        message = repr(error)
        sweep.say(traceback.format_exc())
    sweep.say(f"error: {message}")
    sweep.note({"cell": sweep.overrides(), "how": "failed", "error": message, "record": None})


def main() -> int:
    try:
        job()
    except KeyboardInterrupt:
        print("interrupted; the finished records are kept", file=sys.stderr)
        return 130
    return sweep.exit_status()


if __name__ == "__main__":
    sys.exit(main())
