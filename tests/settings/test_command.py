"""Whatever is typed: at most two lines that name it, and exit status 1, before any work."""

import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from bench import ortho, step, train
from bench.settings import schema
from bench.training import sweep

OWN = {  # files of a user's own
    "broken": "name: [a\nroles: {",
    "empty": "",
    "listed": "- a\n- b\n",
    "text": "hello",
    "twice": "name: a\nname: b\n",
    "part": "name: part\nlr_scale: 1\n",
}
TRAIN = [
    *[(f"{group}=null", f"{group}=null: must be one of") for group in schema.GROUPS],
    *[(f"~{group}", f"~{group}: must be one of") for group in schema.GROUPS],
    *[(f"{group}=5", f"{group}=5: must be one of") for group in schema.GROUPS],
    *[(f"++{group}=5", f"++{group}=5") for group in schema.GROUPS],
    ("experiment=5", "experiment=5: must be one of"),
    ("optimizer=adamm", "optimizer=adamm: no such file of conf/optimizer; perhaps adam or adamw"),
    ("optimizer=[adamw,muon]", "optimizer=[adamw,muon]: takes one"),
    ("qkv=[split,per_head]", "qkv=[split,per_head]: takes one"),
    ("optimizer={lr: 1}", "optimizer.lr: no such setting"),
    ("optimzer=adamw", "optimzer: no such setting; perhaps optimizer"),
    ("train.stepz=1", "train.stepz: no such setting; perhaps steps"),
    ("train.steps=abc", "train.steps=abc: must be a whole number"),
    ("train.batch_size=1.5", "train.batch_size=1.5: must be a whole number"),
    ("perturb=a", "perturb=a: must be a number"),
    ("inspect=perhaps", "inspect=perhaps: must be true or false"),
    ("results_dir=null", "results_dir=null: needs a value"),
    ("seed=${seed}", "seed"),
    ("seed=${oc.env:NO_SUCH_VARIABLE}", "NO_SUCH_VARIABLE"),
    ("seed=${nope:1}", "nope"),
    ("seed=${", "seed=${: cannot be read as key=value"),
    ("seed=", "seed=: must be a whole number"),
    ("seed", "seed: cannot be read as key=value"),
    ("=5", "=5: needs the name of a setting"),
    ("seed=0,1", "seed=0,1: for a sweep, -m comes first"),
    ("seed=0 -m optimizer=muon", "optimizer=muon: options such as -m come before"),
    ("--multi seed=0 --nope", "--nope: no such option"),
    ("--confg-dir=x", "--confg-dir=x: no such option; perhaps --config-dir"),
    ("--config-dir", "--config-dir"),
    ("--config-dir=/nowhere/at/all", "/nowhere/at/all"),
    ("--config-name=nope", "nope"),
    ("train=5", "train=5"),
    ("train=null", "train=null: needs a value"),
    ("~train.steps", "~train.steps"),
    ("structure=[a]", "structure=[a]"),
    ("hydra=5", "hydra"),
    ("hydra.verbose=5", "cannot be composed"),
    ("hydra/launcher=nope", "hydra/launcher=nope: no such file"),
    ("stage=final", "stage=final: is a part of an experiment"),
    ("stage=", "stage=: is a part of an experiment"),
    ("condition=x", "condition=x: is a part of an experiment"),
    ("arm=y", "arm=y: is a part of an experiment"),
    ("results_dir=", "results_dir=: needs the name of a folder"),
    ("optimizer.strict=perhaps", "optimizer.strict=perhaps: must be true or false"),
    ("optimizer.roles=5", "optimizer.roles=5: must be a mapping"),
    ("optimizer.roles.hidden=5", "optimizer.roles.hidden=5: must be a mapping"),
    ("optimizer.roles.hidden._target_=5", "optimizer.roles.hidden._target_=5"),
    ("optimizer.roles.hidden._target_=null", "optimizer.roles.hidden._target_=None"),
    ("optimizer.roles.hidden.nesterov=5", "optimizer.roles.hidden.nesterov=5: must be true or"),
    ("optimizer.roles.hidden.momentum=abc", "optimizer.roles.hidden.momentum=abc: must be a num"),
    ("optimizer.roles.default.betas=[0.9]", "optimizer.roles.default.betas=[0.9]: must be 2 numb"),
    ("optimizer.roles.default.betas=[a,b]", "optimizer.roles.default.betas=['a', 'b']: must be"),
    ("optimizer.roles.default.betas=null", "optimizer.roles.default.betas=None: must be 2 numb"),
    ("optimizer.roles.default.eps=abc", "optimizer.roles.default.eps=abc: must be a number"),
    ("optimizer.roles.default.fused=7", "optimizer.roles.default.fused=7: must be true or fal"),
    ("+optimizer.roles.default.amsgrad=7", "optimizer.roles.default.amsgrad=7: must be true or"),
    ("model._target_=5", "model._target_=5: must be text"),
    ("schedule._target_=null", "schedule._target_=None: must be text"),
    ("data.name=5", "data.name=5: must be letters"),
    ("-m seed=range(0)", "seed=range(0): no values"),
    ("-m seed=abc,1", "seed=abc: must be a whole number"),
    ("-m optimizer=adamm,muon", "optimizer=adamm: no such file"),
    *[(f"optimizer={name}", f"{name}.yaml, line 2: ") for name in ("broken", "twice")],
    *[(f"optimizer={name}", "optimizer: needs one of adam, ") for name in ("empty",)],
    ("optimizer=listed", "optimizer/listed"),
    ("optimizer=text", "optimizer=None: its file is without name"),
    ("optimizer=part", "optimizer=part: its file is without aux_lr_scale, roles"),
]
STEP = [
    ("optimizers=[5]", 'optimizers: "5": optimizer=5: must be one of'),
    ("optimizers=[hybird]", 'optimizers: "hybird": optimizer=hybird: no such file'),
    ("optimizers=5", "optimizers"),
    ("rounds=abc", "rounds=abc: must be a whole number"),
    ("rouns=5", "rouns: no such setting; perhaps rounds"),
    ("batches=[a,b,c]", "batches"),
    ("results_dir=", "results_dir=: needs"),
    ("parallel=null", "parallel=null: must be one of"),
    ("~model", "~model: must be one of"),
    ("train=null", "train=null: needs a value"),
    ("-m seed=range(0)", "seed=range(0): no values"),
]
ORTHO = [
    ("stepz=5", "stepz: no such setting; perhaps steps"),
    ("seed=abc", "seed=abc: must be a whole number"),
    ("results_dir=", "results_dir=: needs"),
    ("fitting=5", "fitting=5"),
    ("methods=nope", "methods=nope: no such set"),
    ("--nope", "--nope: no such option"),
]


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("own") / "optimizer"
    folder.mkdir()
    for name, text in OWN.items():
        (folder / f"{name}.yaml").write_text(text)
    return f"hydra.searchpath=[file://{folder.parent}]"


def typed(entry, capsys, monkeypatch, *arguments: str) -> list[str]:
    """The lines that a command ends with; it has to end with status 1."""
    monkeypatch.setattr("sys.argv", [f"bench/{Path(entry.__file__).name}", *arguments])
    monkeypatch.setattr(sweep, "outcomes", [])
    try:
        status = entry.main()
    except SystemExit as end:
        status = end.code
    finally:
        GlobalHydra.instance().clear()
    said = capsys.readouterr()
    assert status == 1 and not said.out, said
    return said.err.splitlines()


@pytest.mark.parametrize(("command", "said"), TRAIN, ids=[command for command, _ in TRAIN])
def test_an_odd_command_ends_in_a_line_that_names_it(
    command, said, own, capsys, monkeypatch, tmp_path
):
    words = [command] if "{" in command else command.split()
    names = [word.rpartition("=")[2] for word in words]
    words += [own] if any(name in OWN for name in names) else []
    words += [] if "results_dir" in command else [f"results_dir={tmp_path}/results"]
    if "-m" in words[1:] or command in ("--config-dir",):
        words = command.split()
    lines = typed(train, capsys, monkeypatch, *words)
    assert len(lines) <= 2 and said in "\n".join(lines), lines
    assert not (tmp_path / "results" / "runs").exists()


@pytest.mark.parametrize(("command", "said"), STEP, ids=[command for command, _ in STEP])
def test_an_odd_command_of_the_step_benchmark(command, said, capsys, monkeypatch):
    lines = typed(step, capsys, monkeypatch, *command.split())
    assert len(lines) <= 2 and said in "\n".join(lines), lines


@pytest.mark.parametrize(("command", "said"), ORTHO, ids=[command for command, _ in ORTHO])
def test_an_odd_command_of_the_laboratory(command, said, capsys, monkeypatch):
    lines = typed(ortho, capsys, monkeypatch, *command.split())
    assert len(lines) <= 2 and said in "\n".join(lines), lines


@pytest.mark.parametrize("value", ["x", "", "-1"])
def test_a_rank_that_is_no_number(value, capsys, monkeypatch):
    monkeypatch.setenv("RANK", value)
    monkeypatch.setattr("sys.argv", ["bench/train.py", "optimizer=adamm"])
    with pytest.raises(SystemExit, match=f"RANK={value}: must be a whole number"):
        train.main()
    assert not capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "", "no"])
def test_whole_tracebacks_only_where_the_variable_is_one(value, capsys, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", value)
    assert len(typed(train, capsys, monkeypatch, "optimizer=adamm")) == 2
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["bench/train.py", "optimizer=adamm"])
    with pytest.raises(Exception, match="adamm") as caught:
        train.main()
    assert type(caught.value).__name__ == "MissingConfigException"
    GlobalHydra.instance().clear()
