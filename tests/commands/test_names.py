"""Names that others rely on stay, and ours hide nobody's while bench/ is first on the path."""

import json
import subprocess
import sys

import pytest
from hydra.utils import get_method

from bench.settings import targets
from tests.helpers.commands import ROOT

# Everything that the suite uses at some time, each as `python bench/train.py` would find it.
DEPENDENCIES = (
    *("torch", "torch.distributed.tensor", "torch.distributed.checkpoint", "torch._dynamo"),
    *("torch._inductor", "numpy", "scipy.stats", "scipy.optimize"),
    *("matplotlib.pyplot", "altair", "vl_convert", "jinja2"),
    *("hydra", "omegaconf", "transformers", "transformers.models.gpt2.modeling_gpt2"),
    *("transformers.models.vit.modeling_vit", "transformers.models.auto", "tokenizers", "datasets"),
    *("PIL.Image", "safetensors.torch", "filelock", "rich.progress"),
    *("rich.table", "wandb", "pyarrow", "pandas"),
    *(
        "pytorch_optimizer",
        "heavyball",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher",
    ),
    *("wandb_workspaces.workspaces",),
)
OURS = sorted(path.stem for path in (ROOT / "bench").iterdir() if path.stem[0] not in "_.")
CODE = """
import importlib, json, sys
bench, names, ours = json.loads(sys.argv[1])
sys.path.insert(0, bench)
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != name.split(".")[0]:
            raise
print(json.dumps(sorted(name for name in ours if name in sys.modules)))
"""


@pytest.mark.more
def test_no_package_bears_a_name_that_a_dependency_imports():
    """`python bench/train.py` puts bench/ first: a top-level `import records` would find ours."""
    asked = json.dumps([str(ROOT / "bench"), DEPENDENCIES, OURS])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, asked],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert {"records", "training", "train"} <= set(OURS)


@pytest.mark.parametrize(
    "name",
    [
        "optimizers.hybrid",
        "optimizers.muon.Muon",
        "optimizers.structure.describe",
        "optimizers.structure.mark",
        "optimizers.routing.route",
        "optimizers.views.whole",
        "optimizers.precision.bf16_pays",
        "optimizers.orthogonalize.orthogonalize",
        "optimizers.coefficients.per_step",
        "models.gpt2.build",
        "models.vit.build",
        "models.hub.build",
    ],
)
def test_names_that_others_import_stay(name):
    assert callable(get_method(name))


@pytest.mark.parametrize(
    "name",
    [
        *("bench.schedule.constant", "bench.schedule.cosine", "bench.schedule.wsd"),
        *("bench.evidence.difference", "bench.evidence.check"),
        "bench.communication_evidence.step_bytes",
    ],
)
def test_a_users_settings_may_name_the_place_of_before(name):
    found = targets.find(name)
    assert found is targets.find(f"{found.__module__}.{found.__name__}")
    assert targets.name(f"{found.__module__}.{found.__name__}") == name
