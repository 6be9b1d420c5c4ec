"""docs/leaderboard.md: the table from records, what it would take, and others' figures apart."""

import json

import pytest

from bench.reporting import leaderboard, markdown, marked, outside, page, to_run
from bench.reporting.content import gather
from bench.studies import study
from bench.studies.results import Results
from tests.helpers import fake_results, pages, steps
from tests.helpers.commands import ROOT


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """All of experiment=field, with the trials it borrows and the cost of a step."""
    folder = tmp_path_factory.mktemp("results")
    for experiment in ("language", "field"):
        fake_results.fill(folder, experiment, ["short"])
    costs = {arm: 0.1 * n for n, arm in enumerate(study.load("field").arms) if n}
    fake_results.timed(folder, "gpt2_pico-field", **costs)
    return gather(Results(folder))


def test_every_arm_has_a_row_with_its_ranks_its_tuning_and_its_memory(content):
    (one,) = content.comparisons["field"]
    found = leaderboard.ranks(one, content)
    heads = [head.text for head in found.heads]
    rows = {row[1].text: dict(zip(heads, row, strict=True)) for row in found.rows}
    assert rows.keys() == study.load("field").arms.keys()
    for name, row in rows.items():
        assert row["tuning curve"].text.count(",") == 2, name  # borrowed trials, too
        assert row["state"].text.endswith(" MB") and row["state"].small.startswith("peak")
    for name in rows.keys() - {"adamw"}:
        assert "n=5" in rows[name]["test loss"].small and rows[name]["verdict"].text
    ranks = [row["by steps"].text for row in rows.values() if row["by steps"].text != "–"]
    assert ranks == sorted(ranks, key=int) and ranks[0] == "1"
    assert {row["by seconds"].text for row in rows.values() if row["by steps"].text != "–"} == set(
        ranks
    )


def test_the_page_the_report_and_the_html_have_the_table(content):
    text = leaderboard.text(content)
    assert "| by steps | arm | by seconds |" in text and leaderboard.NOTE in text
    assert "No run of" not in text and "step benchmark" not in text
    assert 'aria-label="ranking of field-short"' in page.page(content)
    assert leaderboard.NOTE in markdown.results_page(content, ())


def test_without_records_one_line_says_so_and_what_it_would_take(tmp_path):
    text = leaderboard.text(gather(Results(tmp_path)))
    assert "No run of `experiment=field` has been published" in text
    assert "| by steps |" not in text and "\n\n| table | method |" in text  # others' stand
    runs = sum(study.load("field").counts().values())
    assert f"What is missing: {runs:,} runs" in text
    assert "before them 111 runs of experiment=language condition=short" in text
    assert "the step benchmark gpt2_pico-field" in text


def test_what_it_takes_goes_by_the_pace_of_published_runs_of_that_model_and_batch(tmp_path):
    declared = study.load("field")
    assert to_run.hours(declared, Results(tmp_path).archive) is None
    fake_results.fill(tmp_path, "language", ["short"], ["adamw"])
    whole, pace = to_run.hours(declared, Results(tmp_path).archive)
    assert pace.runs == 42 and pace.model == "gpt2_pico"
    runs = sum(declared.counts().values())
    assert whole == pytest.approx(runs * 500 * 0.05)
    archive = Results(tmp_path).archive
    assert f"{runs} runs, about " in to_run.line(declared, archive)
    assert to_run.row(declared, archive) == "42 runs, about 18 min"


def test_at_another_batch_the_pace_is_that_of_a_token(tmp_path):
    fake_results.fill(tmp_path, "optimizers", ["language"], ["adamw"])
    whole, _ = to_run.hours(study.load("batch_size"), Results(tmp_path).archive)
    assert whole == pytest.approx(30 * 300 * 0.05 * (1 / 4 + 1 + 4))


def test_what_has_records_is_not_counted_again(tmp_path):
    fake_results.fill(tmp_path, "field", arms=["lion"])
    missing = to_run.missing(study.load("field"), Results(tmp_path).archive)
    assert sum(missing.values()) == sum(study.load("field").counts().values()) - 42
    assert not any(count for (_, _, arm), count in missing.items() if arm == "lion")


@pytest.mark.parametrize(("steps", "seconds", "said"), [(3, 1, "up 2"), (1, 2, "down 1"),
                                                        (2, 2, "same"), (1, None, "")])  # fmt: skip
def test_a_change_of_rank_is_in_words(steps, seconds, said):
    assert leaderboard.moved(leaderboard.Ranked(None, 1.0, 0, None, steps, seconds)) == said


def test_trials_that_diverged_are_counted_and_leave_no_mean(tmp_path):
    fake_results.fill(tmp_path, "field", ["short"], ["adamw", "lion"])
    for seed in (100, 101):
        name = f"*-lion-*s{seed}-*tune*"
        file = min((tmp_path / "records" / "field").glob(name))
        one = json.loads(file.read_text())
        lost = {"status": "diverged", "val_loss": None, "test_loss": None, "diverged_step": 4}
        file.write_text(json.dumps(one | lost))
    content = gather(Results(tmp_path))
    (one,) = content.comparisons["field"]
    (row,) = (row for row in leaderboard.ranks(one, content).rows if row[1].text == "lion")
    curve = row[8]
    assert curve.text.startswith("–, ") and "inf" not in curve.text
    assert curve.small == "2 of 30 diverged"


def test_early_training_is_not_judged(tmp_path):
    declared = fake_results.fill(tmp_path, "field", ["short"], ["adamw", "lion"])
    fake_results.lines(tmp_path, declared, "short", bigram=2.0)
    text = leaderboard.text(gather(Results(tmp_path)))
    assert "| not judged (early training) |" in text and "no difference shown" not in text
    assert "Early training: adamw ends above the bigram" in text


def test_optimizers_without_a_row_are_named():
    names = leaderboard.without_row(study.load("field"))
    assert {"prodigy", "splus"} <= set(names) and not {"lion", "adamw"} & set(names)


# others' figures ----------------------------------------------------------------------------------


def test_others_facts_have_a_source_and_a_date_and_meet_arms_that_there_are():
    arms = study.load("field").arms
    sources = outside.load()
    assert len(sources) >= 2
    for one in sources:
        assert one.source and one.date[:3] == "202" and one.best in ("low", "high")
        assert one.facts and all(fact.arm in (None, *arms) for fact in one.facts)
        assert all(fact.value > 0 for fact in one.facts)


def test_others_figures_are_marked_as_theirs_and_stand_by_the_method_they_share(content):
    (one,) = content.comparisons["field"]
    found = leaderboard.ranks(one, content)
    assert (found.heads[-1].text, found.heads[-1].small) == ("others'", "not our measurement")
    last = {row[1].text: row[-1].text for row in found.rows}
    assert "3,250 steps (modded-nanogpt, track 3)" in last["muonh"]
    assert "0.507 score (AlgoPerf, with Muon)" in last["ademamix"]
    assert last["mars"] == "–"
    text = leaderboard.text(content)
    assert "no correlation is computed or claimed" in text
    for source in outside.load():
        assert f"({source.source}; {source.date})" in text


# the pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["leaderboard", "questions"])
def test_a_generated_page_has_the_place_that_is_filled(name):
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    new = marked.filled(text, name, "what \\1 the records say")
    assert new.count("what \\1 the records say") == 1
    assert new.partition("<!--")[0] == text.partition("<!--")[0]
    assert marked.filled(new, name, "what \\1 the records say") == new
    assert marked.filled(text, "other", "x") == text


def test_the_page_measures_the_cost_of_every_arm_at_the_batch_that_is_trained(tmp_path):
    declared = study.load("field")
    typed = pages.commands(ROOT / "docs" / "leaderboard.md")
    (words,) = (one.words for one in typed if one.entry == "step")
    found = steps.settle(*words)
    assert found.name == declared.cost_of["short"]
    named = {word.partition("=")[2] for own in declared.arms.values() for word in own
             if word.startswith("optimizer=")}  # fmt: skip
    assert named <= found.arms.keys()
    (one,) = {(s.train.sequence_length, s.train.precision) for s in found.arms.values()}
    assert 8 in found.batches and one == (128, "fp32")
