"""One's own runs lead the report: tables, curves, the next command; the published one has none."""

import json

import pytest

from bench.display import terminal
from bench.records import archive, record
from bench.reporting import markdown, own_charts, own_next, own_runs, page, screen
from bench.reporting.content import gather
from bench.studies import pairs, study
from bench.studies.results import Results
from tests.helpers import fake_results

LOSSES = {"adamw": (4.0, 4.2, 4.1), "hybrid": (3.7, 3.8, 3.9)}


@pytest.fixture
def mine(tmp_path):
    for optimizer, of in LOSSES.items():
        for seed, loss in enumerate(of):
            fake_results.own(tmp_path, optimizer, seed, loss)
    return tmp_path


def found(folder) -> own_runs.OwnRuns:
    return own_runs.gather(archive.read(folder).runs, study.declared())


def printed(*things) -> list[str]:
    console = terminal.console()
    with console.capture() as capture:
        for one in things:
            console.print(one)
    return capture.get().splitlines()


def test_own_are_runs_of_no_declared_experiment_that_are_not_published(mine):
    fake_results.fill(mine, "optimizers", ["language"], ["adamw"], [0])
    odd = json.loads(next(mine.glob("records/optimizers/*")).read_text())
    fake_results.write(mine, odd | {"experiment": "mine", "cell": "published"})
    part = {"cell": "part", "experiment": "optimizers", "arm": "adamw"}
    fake_results.own(mine, "adamw", 5, 4.0, **part)
    assert len(found(mine).runs) == 6
    content = gather(Results(mine))
    assert [run.record["cell"] for run in content.loose] == ["published"]
    assert gather(Results(mine, published=True)).own.runs == []


def test_a_row_has_the_mean_its_difference_and_what_it_cost(mine):
    (bench,) = found(mine).benches
    table = own_runs.table(bench)
    at = {head.text: number for number, head in enumerate(table.heads)}
    adamw, hybrid = table.rows
    assert adamw[0].text == "adamw" and adamw[at["difference"]].text == "–"
    assert hybrid[at["test loss"]].text.startswith("3.8")
    assert hybrid[at["difference"]].text.startswith("−0.3")
    assert "n=3" in hybrid[at["difference"]].small
    assert adamw[at["tokens/s"]].text == "23.8k"  # 1,024 in 43 ms
    assert adamw[at["share"]].text == "7.0 %" and adamw[at["peak"]].text == "300.0 MB"


@pytest.mark.parametrize("long", [False, True])
def test_the_screen_fits_80_columns(mine, long):
    if long:
        roles = {"hidden": {"orthogonalizer": {"coefficients": "a_long_name_of_coefficients"}}}
        config = {"optimizer": {"name": "hybrid", "lr_scale": 0.125, "roles": roles}}
        fake_results.own(mine, "hybrid", 0, 12.3456, cell="long", config=config)
    lines = printed(*screen.own(found(mine)))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "gpt2_nano on fake" in text and "−0.30 ±" in text and "baseline" in text
    assert "23.8k" in text and "300MB" in text


def test_many_settings_are_cut_and_counted(tmp_path):
    for number in range(30):
        fake_results.own(tmp_path, "adamw", 0, 4.0, cell=f"{number}", tokens_per_step=number + 1)
    own = found(tmp_path)
    shown = screen.own(own)
    assert len(shown) == screen.MOST
    assert screen.left(own, len(shown)) == "10 more settings of yours are in the report"


# the next command ---------------------------------------------------------------------------------

SWEPT = "python bench/train.py -m model=gpt2_nano optimizer=adamw,hybrid train.steps=9"


@pytest.mark.parametrize(
    ("runs", "command"),
    [
        (  # no AdamW: the same without what is Muon's
            {"hybrid": ("python bench/train.py optimizer=hybrid qkv=fused train.steps=9", (0, 1))},
            "python bench/train.py -m train.steps=9 optimizer=adamw seed=0,1",
        ),
        (  # seeds that one has and the other lacks
            {"adamw": (SWEPT, (0,)), "hybrid": (SWEPT, (0, 1, 2))},
            "python bench/train.py -m model=gpt2_nano optimizer=adamw train.steps=9 seed=1,2",
        ),
        (  # one seed of a sweep: the sweep again
            {"adamw": (SWEPT, (0,)), "hybrid": (SWEPT, (0,))},
            f"{SWEPT} seed=1,2",
        ),
        (  # AdamW alone
            {"adamw": ("python bench/train.py optimizer=adamw optimizer.lr_scale=2", (0,))},
            "python bench/train.py optimizer=hybrid seed=0",
        ),
        (  # all there
            {"adamw": (SWEPT, (0, 1, 2)), "hybrid": (SWEPT, (0, 1, 2))},
            "python bench/report.py 'compare=[gpt2_nano-adamw,gpt2_nano-hybrid]'",
        ),
        (  # seeds that no command of ours can add: what there is
            {"adamw": ("python mine.py", (0,)), "hybrid": ("python mine.py", (1,))},
            "python bench/report.py 'compare=[gpt2_nano-adamw,gpt2_nano-hybrid]'",
        ),
        ({"hybrid": ("python mine.py", (0,))}, None),  # nothing is made up
        ({"hybrid": ("python bench/train.py 'optimizer=hybrid", (0,))}, None),
    ],
)
def test_the_next_command_is_what_is_missing(tmp_path, runs, command):
    for optimizer, (typed, seeds) in runs.items():
        for seed in seeds:
            fake_results.own(tmp_path, optimizer, seed, 4.0 - 0.01 * seed, command=typed)
    advice = own_next.advice(found(tmp_path))
    assert (advice and advice[1]) == command


def test_a_rate_that_was_only_tried_lacks_no_seeds(mine):
    fake_results.own(mine, "hybrid", 0, 5.0, 8.0, command=SWEPT)
    # The beginning of hybrid's names is the other rate's, too: a pair of cells is compared.
    cells = "compare=[gpt2_nano-adamw-s0-1,gpt2_nano-hybrid-s0-1]"
    assert cells in own_next.advice(found(mine))[1]


# the written report -------------------------------------------------------------------------------


def test_the_markdown_opens_with_them_and_folds_claims_without_records(mine):
    text = markdown.results_page(gather(Results(mine)), ["pictures/your-runs-1-steps.svg"])
    assert text.index("## Your runs") < text.index("## The answer")
    own = text[text.index("## Your runs") : text.index("## The answer")]
    assert "### gpt2_nano on fake" in own and "| hybrid |" in own
    assert "(pictures/your-runs-1-steps.svg)" in own and "seconds.svg" not in own
    assert "\n\n    python bench/report.py 'compare=[" in own
    verdicts = text[text.index("## Claims") :]
    folded = verdicts.index("<details><summary>")
    assert "claims have no records yet: bench/train.py experiment=" in verdicts[folded:]
    assert "**not enough evidence**" not in verdicts[:folded]


def test_the_published_report_has_none(mine):
    text = markdown.results_page(gather(Results(mine, published=True)), [])
    assert "Your runs" not in text and "gpt2_nano on fake" not in text


def test_curves_are_drawn_over_steps_and_seconds(mine):
    own = found(mine)
    drawn = own_charts.every(own)
    assert list(drawn) == ["pictures/your-runs-1-steps.svg", "pictures/your-runs-1-seconds.svg"]
    steps, seconds = (one.to_dict() for one in drawn.values())  # validated
    rows = [drawn["data"]["values"] for drawn in (steps, seconds)]
    assert {row["arm"] for row in rows[0]} == {"adamw", "hybrid"}
    assert all(one["x"] == pytest.approx(0.05 * one["step"]) for one in rows[1])
    assert all(row["n"] == 3 for row in rows[0])


def test_the_page_has_them_first_with_each_run_and_its_command(mine, monkeypatch):
    monkeypatch.setattr(page.vl_convert, "javascript_bundle", lambda **options: "")
    hostile = "<script>alert(1)</script>"
    fake_results.own(mine, "hybrid", 9, 4.0, data=hostile, command=hostile)
    text = page.page(gather(Results(mine)))
    assert text.index('id="your-runs"') < text.index('id="answer"')
    assert 'id="your-runs-1-1"' in text and "claims have no records yet" in text
    assert "<script>alert(1)" not in text and "&lt;script&gt;alert(1)" in text


def test_odd_settings_of_records_are_shown_in_plain_signs(mine):
    odd = {"optimizer": {"name": "hybrid", "\ud800": "\ud800|\n## x", "huge": 10**400}}
    fake_results.own(mine, "hybrid", 0, 4.0, cell="odd", config=odd)
    (bench,) = found(mine).benches
    names = "".join(one.name for one in bench.groups)
    assert names.isprintable() and names.encode() and pairs.same(odd)
    record.write_json(mine / "names.json", names)
