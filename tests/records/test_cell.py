"""A cell's name: what changes it, what does not, and that it outlives changes of the code."""

import functools
import json

import pytest

from bench.records import archive, mathematics
from bench.records import cell as cells
from bench.settings import targets
from bench.settings.errors import UserError
from bench.studies import plan, request, study
from bench.studies.campaign import Campaign
from tests.helpers.commands import FP32, ROOT, settle


def cell(*overrides: str) -> str:
    return cells.name(settle(*FP32, *overrides))


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "model.layers=3",
        "data.eval_sequences=8",
        "data.final_eval_sequences=8",
        "data.years=[1790,1860]",
        "data@other_data=sotu",
        "lora_rank=8",
        "schedule=cosine",
        "train.steps=149",
        "train.batch_size=8",
        "train.precision=bf16",
        "train.average_last=0.2",
        "optimizer.lr_scale=2",
        "qkv=fused",
        "orthogonalizer.steps=4",
        "structure={*.c_fc.weight: vector}",
    ],
)
def test_what_can_change_the_result_changes_the_cell(override):
    assert cell(override) != cell()


@pytest.mark.parametrize(
    "override",
    [
        "train.checkpoint_every=7",
        "train.keep_checkpoint=true",
        "train.save_weights=true",
        "data.years=null",
        "init_from=null",
        "lora_rank=null",
        "train.reference_steps=0",
        "train.save_momentum_every=3",
        "optimizer.lr_scale=1",
        "tracker=none",
        "results_dir=elsewhere",
        "experiment=smoke",
        "optimizer.strict=true",
        "structure={}",
    ],
)
def test_what_cannot_change_the_result_does_not(override):
    assert cell(override) == cell()


@pytest.mark.parametrize("group", ["model", "data", "optimizer"])
@pytest.mark.parametrize(
    "name", ["../../x", "a/b", "null", "''", ".hidden", "'a b'", "'a\\nb'", "5", "a" * 101]
)
def test_a_name_that_is_none_for_a_folder_is_refused_before_work(group, name):
    with pytest.raises(UserError, match=rf"^{group}\.name=.*: must be letters, digits"):
        cell(f"{group}.name={name}")


def test_the_order_of_patterns_is_part_of_the_cell_for_the_last_one_wins():
    first, second = "*.weight: vector", "*.c_fc.*: hidden"
    assert cell(f"structure={{{first}, {second}}}") != cell(f"structure={{{second}, {first}}}")


def test_changed_pictures_are_another_cell():
    assert cell("model=vit_nano", "data.augment=shift_flip") != cell("model=vit_nano")
    assert cell("model=vit_nano", "data.augment=none") == cell("model=vit_nano")


def test_adamw_has_no_use_for_qkv_nor_for_the_orthogonalizer():
    plain = cell("optimizer=adamw")
    assert cell("optimizer=adamw", "qkv=fused") == plain
    assert cell("optimizer=adamw", "orthogonalizer=taylor") == plain
    assert "split" not in plain and "split" in cell("optimizer=muon")


def test_a_users_text_is_known_by_its_content(tmp_path):
    for name, text in (("a", "same words"), ("b", "same words"), ("c", "other words")):
        (tmp_path / f"{name}.txt").write_text(text)
    a, b, c = (cell("data=text_files", f"data.path={tmp_path}/{n}.txt") for n in "abc")
    assert a == b != c


def test_auto_is_resolved_before_the_cell_is_named(monkeypatch):
    monkeypatch.setattr("optimizers.precision.bf16_pays", lambda device: True)
    fast = settle()
    monkeypatch.setattr("optimizers.precision.bf16_pays", lambda device: False)
    slow = settle()
    assert (fast.train.precision, slow.train.precision) == ("bf16", "fp32")
    assert fast.optimizer["roles"]["hidden"]["orthogonalizer"]["dtype"] == "bf16"
    assert cells.name(fast) != cells.name(slow)


# names that last ------------------------------------------------------------------------------

# As before a run's last evaluation read more than the others.
BEFORE = "data.final_eval_sequences=null"
# As they were when the first results were published. A name that is not the same any more makes
# every run of its kind be trained again: raise `mathematics`, or mend the hash.
NAMES = {
    "gpt2_nano-hybrid-split-s0-8c041dc4db": "",
    "gpt2-muon-split-s3-c7e8ff90dd": "optimizer=muon model=gpt2 seed=3",
    "vit_nano-adamw-s0-a2c47fb47c": "optimizer=adamw model=vit_nano schedule=cosine",
    "vit-hybrid-per_head-s0-9515d69540": "model=vit qkv=per_head train.precision=bf16 "
    "orthogonalizer.dtype=bf16",
    "gpt2_nano-torch_muon-s0-e7568673cf": "optimizer=torch_muon schedule=constant",
    "gpt2_nano-muon-head_groups-s0-4842cf7cb6": "optimizer=muon qkv=head_groups "
    "qkv.heads_per_group=2 qkv.output=per_head orthogonalizer=polar_express",
    "gpt2_nano_sparse-hybrid_sparse-split-s0-69d9724aad": "optimizer=hybrid_sparse "
    "model=gpt2_nano_sparse orthogonalizer.norm=schatten4",
    "gpt2_nano-hybrid-fused-s0-ee422be517": "parallel=fsdp2_tp qkv=fused perturb=1e-6",
    "gpt2_nano-normuon-split-s0-dc2a468796": "optimizer=normuon parallel=ddp "
    "parallel.muon=replicate structure={*.c_fc.weight:vector}",
    "gpt2_nano-muonbp-split-s0-296b2a3b20": "optimizer=muonbp optimizer.lr_scale=0.5 "
    "train.time_limit=60 orthogonalizer=exact",
    "vit_nano-adam-s0-9a52b950f0": "optimizer=adam model=vit_nano optimizer.lr_scale=2",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_as_they_were_when_the_first_results_were_published(name, monkeypatch):
    monkeypatch.setattr(cells, "MATHEMATICS", 1)
    precision = [word for word in FP32 if word.split("=")[0] not in NAMES[name]]
    assert cells.name(settle(*precision, *NAMES[name].split(), BEFORE)) == name


@functools.cache
def published() -> dict[str, dict[str, dict]]:
    """By experiment the published records, by cell."""
    found: dict[str, dict[str, dict]] = {}
    for file in sorted((ROOT / "results" / "records").glob("*/*.json")):
        found.setdefault(file.parent.name, {})[file.stem] = json.loads(file.read_text())
    return found


@pytest.mark.more
@pytest.mark.parametrize(
    "experiment", [name for name in published() if not study.load(name).continues]
)
def test_an_experiment_would_skip_what_is_published_on_any_processor(experiment, monkeypatch):
    """It pins what depends on the machine. Runs that start from given weights are named by these,
    which are not published."""
    records = published()[experiment]
    (number,) = {mathematics.of(one) for one in records.values()}
    monkeypatch.setattr(cells, "MATHEMATICS", number)
    monkeypatch.setattr(mathematics, "MATHEMATICS", number)
    words = [f"experiment={experiment}", *([BEFORE] if number < 3 else [])]
    campaign = Campaign(request.read(words))
    declared = campaign.study
    rates = {
        (part["condition"], declared.rates_of.get(part["arm"], part["arm"])): one["lr_scale"]
        for one in records.values()
        for part in one["part_of"]
        if part["stage"] == study.FINAL
    }
    if declared.search is None:
        sweeps = [*plan.tuning(declared), *plan.final(declared, rates)]
        ready = [campaign.plan(sweep) for sweep in sweeps]
    else:
        ready = campaign.ready()
    planned = {name: settings for one in ready for name, settings in one.cells.items()}
    assert records.keys() <= planned.keys()
    for name, one in records.items():
        assert archive.setup(one) == archive.planned(planned[name])


def test_code_that_moves_renames_no_cell(monkeypatch):
    runs = [settle(*FP32), settle(*FP32, "model=vit_nano", "schedule=cosine")]
    before = [cells.name(one) for one in runs]
    monkeypatch.setitem(targets.MOVED, "bench.schedule", "bench.elsewhere.schedule")
    monkeypatch.setitem(targets.MOVED, "optimizers.muon", "optimizers.elsewhere.muon")
    monkeypatch.setitem(targets.MOVED, "models.vit", "models.elsewhere.vit")
    for one in runs:
        for block in (one.schedule, one.model, *one.optimizer["roles"].values()):
            package, module, last = block["_target_"].rsplit(".", 2)
            package = package.partition(".")[0]
            moved = targets.MOVED.get(f"{package}.{module}")
            block["_target_"] = f"{moved}.{last}" if moved else block["_target_"]
    assert "elsewhere" in runs[0].schedule["_target_"]
    assert "elsewhere" in runs[1].model["_target_"]
    assert "elsewhere" in runs[1].optimizer["roles"]["hidden"]["_target_"]
    assert [cells.name(one) for one in runs] == before


def test_a_target_goes_by_its_old_and_its_new_place(monkeypatch):
    monkeypatch.setitem(targets.MOVED, "bench.before", "bench.records.mathematics")
    assert targets.find("bench.before.of") is targets.find("bench.records.mathematics.of")
    assert targets.name("bench.before.of") == targets.name("bench.records.mathematics.of")
    assert targets.name("theirs.of") == "theirs.of"


def test_a_setting_that_came_later_counts_only_where_it_differs(monkeypatch):
    """As of the orthogonalizer's norm, for a setting of any group."""
    before = cell()
    assert cell("orthogonalizer.norm=frobenius", "perturb=0", "parallel=none") == before
    settings = settle(*FP32)
    settings.optimizer["roles"]["hidden"]["orthogonalizer"].pop("norm")  # a user's older file
    assert cells.name(settings) == before
    names = []
    for value in (None, 3, 4):
        settings = settle(*FP32)
        settings.schedule["late"] = settings.optimizer["roles"]["vector"]["late"] = value
        monkeypatch.setitem(cells.LATER, "schedule.late", None)
        monkeypatch.setitem(cells.LATER, "optimizer.roles.*.late", None)
        names.append(cells.name(settings))
    assert names[0] == before and len(set(names)) == 3


def test_a_users_text_is_the_cell_it_was_and_a_column_of_a_table_another(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    settings = settle(*FP32, "data=text_files", f"data.path={tmp_path}")
    name = cells.name(settings)
    settings.data["column"] = "text"
    (tmp_path / "a.txt").rename(tmp_path / "a.csv")
    assert cells.name(settings) != name
    del settings.data["column"]  # as before there was the setting
    (tmp_path / "a.csv").rename(tmp_path / "a.txt")
    assert cells.name(settings) == name


def test_mathematics_is_part_of_the_cell_from_2_on(monkeypatch):
    names = []
    for number in (1, 2, 3):
        monkeypatch.setattr(cells, "MATHEMATICS", number)
        names.append(cell(BEFORE))
    assert len(set(names)) == 3 and names[0] in NAMES
