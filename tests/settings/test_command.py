"""Whatever is typed: at most two lines that name it, and exit status 1, before any work."""

import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from bench import ortho, step, train
from bench.settings import schema
from bench.training import sweep
from tests.helpers.commands import TINY

BY_NAME = ("qkv", "parallel", "tracker")  # groups whose name says what is done
OWN = {  # files of a user's own, of optimizers and of data
    "broken": "name: [a\nroles: {",
    "empty": "",
    "listed": "- a\n- b\n",
    "text": "hello",
    "twice": "name: a\nname: b\n",
    "part": "name: part\nlr_scale: 1\n",
    "sourceless": "name: sourceless\ntask: text\n",
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
    *[
        (word, "no such setting; optimizer.lr_scale=2 doubles every rate")
        for word in ("optimizer.lr=1e-3", "+optimizer.lr=1e-3", "train.lr=1", "+lr=0.1", "lr=0.1")
    ],
    ("-m optimizer.lr=1e-3,2e-3", "optimizer.lr: no such setting; optimizer.lr_scale=2"),
    ("train.stpes=5", "train.stpes: no such setting; perhaps steps"),
    ("+train.stpes=5", "train.stpes: no such setting; perhaps steps"),
    ("model=gpt3", "model=gpt3: no such file of conf/model; perhaps gpt2"),
    ("model=vit model=gpt2", "model=vit model=gpt2: model is there twice; it takes one file"),
    ("experiment=qkv experiment=smoke", "experiment is there twice; it takes one file"),
    ("optimzer=adamw", "optimzer: no such setting; perhaps optimizer"),
    ("train.stepz=1", "train.stepz: no such setting; perhaps steps"),
    ("train.steps=abc", "train.steps=abc: must be a whole number"),
    ("optimizer.overlap=forward", "optimizer.overlap=forward: must be none or backward"),
    ("optimizer.overlap=backward", "optimizer.overlap=backward: needs train.clip_norm=null"),
    ("train.clip_part=adamw", "train.clip_part=adamw: must be null or auxiliary"),
    (
        "train.clip_part=auxiliary train.clip_norm=null",
        "train.clip_part=auxiliary: needs train.clip_norm, which is null",
    ),
    ("train.batch_size=1.5", "train.batch_size=1.5: must be a whole number"),
    ("perturb=a", "perturb=a: must be a number"),
    ("inspect=perhaps", "inspect=perhaps: must be true, false or full"),
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
    ("schedule._target_=os.getcwd", "schedule._target_=os.getcwd: "),
    ("schedule._target_=os", "schedule._target_=os: is a module, which cannot be called; must be"),
    ("schedule._target_=nope.x", "schedule._target_=nope.x: No module named 'nope'; must be"),
    ("schedule._target_=.", "schedule._target_=.: "),
    ("schedule._target_=bench.training.schedule.wds", "schedule._target_=bench.training.sched"),
    ("schedule._target_=models.sizes.check_positive", "models.sizes.check_positive: check_"),
    *[(f"{group}.name=zz", f"{group}.name=zz: must be one of ") for group in BY_NAME],
    *[(f"{group}.name=null", f"{group}.name=None: must be one of ") for group in BY_NAME],
    ("optimizer.roles.hidden.qkv={name: ../../x}", "hidden.qkv.name=../../x: must be one of fused"),
    ("optimizer.roles.hidden.qkv={output: whole}", "hidden.qkv.name=None: must be one of fused"),
    ("data=sourceless", "data=sourceless: its file is without source"),
    ("data.name=5", "data.name=5: must be letters"),
    ("other_data.years=[1790,1860]", "other_data.years: no such setting; accepted here: none"),
    ("data@other_data=nope", "data=nope: no such file of conf/data"),
    ("data@other_data=sotu data@other_data=wikitext", "data@other_data is there twice"),
    ("data@other_data=sotu +other_data.x=1", "other_data.x: no such setting"),
    ("data@other_data=fashion_mnist", "data@other_data=fashion_mnist: is images, but model="),
    ("lora_rank=0", "lora_rank=0: must be at least 1"),
    ("lora_rank=8 parallel=fsdp2", "lora_rank=8: needs parallel=none or ddp, not fsdp2"),
    ("init_from=nowhere", "init_from=nowhere: has no weights; it takes a run's folder"),
    ("init_from=pretrain/early/adamw", "needs bench/train.py experiment=pretrain first: no run"),
    ("-m seed=range(0)", "seed=range(0): no values"),
    ("-m model=glob(nope*)", "model=glob(nope*): no values"),
    ("-m seed=abc,1", "seed=abc: must be a whole number"),
    ("-m seed=interval(0,4)", "seed=interval(0,4): needs -m hydra/sweeper=optuna; a sweep without"),
    ("perturb=interval(0,0.1)", "perturb=interval(0,0.1): needs -m hydra/sweeper=optuna"),
    ("-m --cfg job seed=interval(0,4) hydra/sweeper=basic", "has no value before the search"),
    ("+experiment=smoke", "+experiment=smoke: a group takes no +; type experiment=smoke"),
    ("-m ++model=vit seed=0,1", "++model=vit: a group takes no +; type model=vit"),
    ("experiment=smoke hydra/sweeper=basic", "hydra/sweeper=basic: a study chooses its runs"),
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


def test_the_settings_of_each_job_of_a_sweep_can_be_shown(capsys, monkeypatch):
    words = ["-m", "--cfg", "job", "seed=3,4", "model=glob(vit_na*)"]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    assert train.main() == 0
    shown = [OmegaConf.create(text) for text in capsys.readouterr().out.split("---\n")[1:]]
    assert [(one.seed, one.model.name) for one in shown] == [(3, "vit_nano"), (4, "vit_nano")]


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("own")
    for group in ("optimizer", "data"):
        (folder / group).mkdir()
        for name, text in OWN.items():
            (folder / group / f"{name}.yaml").write_text(text)
    return f"hydra.searchpath=[file://{folder}]"


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


@pytest.mark.parametrize(("group", "name"), [("model", "gpt2_pico"), ("experiment", "language")])
def test_a_file_without_its_first_line_is_told_to_have_it(
    group, name, capsys, monkeypatch, tmp_path
):
    text = (schema.CONF / group / f"{name}.yaml").read_text()
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(text.replace("# @package _global_\n", ""))
    words = (f"hydra.searchpath=[file://{tmp_path}]", f"{group}=mine")
    (line,) = typed(train, capsys, monkeypatch, *words)
    assert line == f"error: {group}/mine.yaml: its first line must be '# @package _global_'"


IMPORTED = [  # names that an import finds wrong
    ("model._target_=os.getcwd", "builds a model from layers, heads, width, positions, vocab_size"),
    ("model._target_=os", "model._target_=os: is a module, which cannot be called; must be"),
    ("model._target_=nope.build", "model._target_=nope.build: No module named 'nope'; must be"),
    ("model._target_=models.gpt2.nope", "model._target_=models.gpt2.nope: No module named"),
    (
        "model._target_=models.vit.build",
        "models.vit.build: missing a required argument: 'ima",
    ),
    ("model._target_=builtins.max", "model._target_=builtins.max: "),
    ("model._target_=collections.ChainMap", "collections.ChainMap: got an unexpected"),
    ("model._target_=argparse.Namespace", "argparse.Namespace: built a Namespace that is no"),
    ("model._target_=torch.nn.Identity", "torch.nn.Identity: built a Identity without param"),
    ("model._target_=broken_module.build", "model._target_=broken_module.build: SyntaxError: "),
    ("model.tokenizer=zz", "model.tokenizer=zz: must be one of gpt2, sotu1024, sotu4096"),
    ("model.tokenizer=null", "model.tokenizer=None: must be one of gpt2, sotu1024, sotu4096"),
    ("data.source=zz", "data.source=zz: it takes shipped, hub or text_files"),
    ("data.folder=zz", "data.folder=zz: "),
    ("data.years=5", "data.years=5: it takes null or [first, last], as [1790, 1860]"),
    ("data.years=[1860,1790]", "data.years=[1860, 1790]: it takes null or [first, last]"),
    ("init_from=README.md", "init_from=README.md: is no .safetensors file"),
]
ROLE = "optimizer.roles.hidden._target_"
IMPORTED += [
    (f"{ROLE}=os.getcwd", f"{ROLE}=os.getcwd: not a torch.optim.Optimizer; must be a class as"),
    (f"{ROLE}=torch.optim.Nope", f"{ROLE}=torch.optim.Nope: module 'torch.optim' has no"),
    (f"{ROLE}=nope.Muon", f"{ROLE}=nope.Muon: No module named 'nope'; must be a class"),
    (f"{ROLE}=broken_module.Muon", f"{ROLE}=broken_module.Muon: "),
]


@pytest.mark.more
@pytest.mark.parametrize("inspects", [True, False])
@pytest.mark.parametrize(("command", "said"), IMPORTED, ids=[command for command, _ in IMPORTED])
def test_a_name_of_what_is_not_there(command, said, inspects, capsys, monkeypatch, tmp_path):
    (tmp_path / "broken_module.py").write_text("def build(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = [*TINY, "tracker=none", f"results_dir={tmp_path}/results", f"inspect={inspects}"]
    lines = typed(train, capsys, monkeypatch, *words, command)
    lines = [line for line in lines if not line.startswith("gpt2_nano")]
    assert len(lines) <= 2 and said in "\n".join(lines), lines
    assert not list((tmp_path / "results").glob("runs/*/metrics.jsonl"))


@pytest.mark.more
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
