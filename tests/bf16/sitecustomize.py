"""Answers `auto`'s question in the place of the processor: BF16=faster or BF16=slower.

On PYTHONPATH it does so in every Python process that is started, the commands under test too. The
real function stays reachable as `bf16_pays.measured`.
"""

import importlib.abc
import importlib.machinery
import os
import sys

ANSWERS = {"faster": True, "slower": False}


class Answering(importlib.abc.MetaPathFinder):
    def __init__(self, pays: bool) -> None:
        self.pays = pays

    def find_spec(self, name, path, target=None):
        if name != "optimizers.precision":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def answer(module):
            run(module)
            measured = module.bf16_pays

            def bf16_pays(device_type: str) -> bool:
                return self.pays if device_type == "cpu" else measured(device_type)

            bf16_pays.measured = measured
            module.bf16_pays = bf16_pays

        spec.loader.exec_module = answer
        return spec


if answer := os.environ.get("BF16"):
    sys.meta_path.insert(0, Answering(ANSWERS[answer]))
