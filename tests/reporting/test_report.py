"""`bench/report.py` and its Markdown: from whatever there is, the same from the same records."""

import json
import math
from dataclasses import replace

import pytest

from bench import report
from bench.records import ledger
from bench.reporting import brief, charts, line_layers, markdown, marked, tables
from bench.reporting.content import gather
from bench.reporting.tables import Cell
from bench.studies.lines import Lines
from bench.studies.results import Results
from bench.verdicts import claims
from bench.verdicts.ages import Ages
from bench.verdicts.claims import Claim
from bench.verdicts.judging import CONFIRMED, THEOREM, Verdict
from tests.helpers import fake_results


def made(folder, *arguments) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["report.py", f"results_dir={folder}", *arguments])
        return report.main()


def test_an_empty_folder_gives_a_report_that_says_what_is_missing(tmp_path, capsys):
    assert made(tmp_path) == 0
    text = (tmp_path / "README.md").read_text()
    assert "- `optimizers`: At equal steps" in text and "not enough evidence" in text
    assert "No file was left out" in text


def test_damaged_files_are_named_and_the_report_still_comes(tmp_path, capsys):
    fake_results.fill(tmp_path, "optimizers", ["language"])
    fake_results.step(tmp_path, "whole", ("hybrid",))
    (tmp_path / "steps" / "torn.json").write_text('{"optim')
    (tmp_path / "steps" / "half.json").write_text("{}")
    (tmp_path / "ortho").mkdir()
    (tmp_path / "ortho" / "checks.json").write_text("[1")
    (tmp_path / "records" / "optimizers" / "torn.json").write_text("{")
    assert made(tmp_path) == 0
    said, text = capsys.readouterr().err, (tmp_path / "README.md").read_text()
    for name in ("steps/torn.json", "steps/half.json", "ortho/checks.json", "optimizers/torn.json"):
        assert name in said and name in text
    assert "A step: whole" in text and "### optimizers, language" in text
    assert (tmp_path / "pictures" / "optimizers.svg").stat().st_size > 1000


def test_a_search_is_shown_by_what_it_tried_and_chose(tmp_path):
    fake_results.fill(tmp_path, "language", ["short"])
    assert made(tmp_path) == 0
    text = (tmp_path / "README.md").read_text()
    assert "What the searches chose:" in text and "| adamw (baseline) | " in text
    assert "auxiliary (rate, of all)" in text and "embedding (rate, of all)" in text
    assert (tmp_path / "pictures" / "language-short-tuning.svg").stat().st_size > 1000
    assert "**Missing:**" not in text.partition("### language, short")[2].partition("###")[0]


@pytest.mark.more
def test_the_same_records_give_the_same_bytes_and_others_are_noticed(tmp_path, capsys):
    fake_results.fill(tmp_path, "qkv", ["long"])
    made(tmp_path)
    names = ("README.md", "records.csv", "verdicts.json", "report.html")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    assert made(tmp_path, "--check") == 0
    made(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    file = next((tmp_path / "records" / "qkv").glob("*-s0-*.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"test_loss": 1.0}))
    assert made(tmp_path, "--check") == 1
    assert "README.md is not what the records say" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["README.md", "records.csv", "verdicts.json", "report.html"])
def test_what_no_report_wrote_is_not_replaced(tmp_path, capsys, name):
    (tmp_path / name).write_text("# Results\n\nMy own.\n")
    assert made(tmp_path) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"results_dir={tmp_path}: {name} is there" in said
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "# Results\n\nMy own.\n"


def test_no_folder_at_all_is_not_the_present_one(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert made("") == 1
    assert capsys.readouterr().err == "error: results_dir=: no such folder\n"
    assert not list(tmp_path.iterdir())


def test_the_committed_report_is_known_as_one():
    assert report.refused(report.ROOT / "results") is None


def test_a_folder_that_is_not_there_is_one_line(tmp_path, capsys):
    assert made(tmp_path / "nowhere") == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_text_of_records_cannot_end_a_cell_or_a_line():
    assert marked.text(Cell("a|b\nc", "<d>")) == "a\\|b c (&lt;d>)"


def test_the_readme_opens_with_the_answer_its_table_and_its_picture(tmp_path):
    fake_results.fill(tmp_path, "optimizers", ["language"])
    content = gather(Results(tmp_path))
    old = "<!-- answer: from results -->\nold\n<!-- end -->\nthe rest\n"
    text = markdown.filled(old, content, [markdown.picture(markdown.FOREST)])
    assert "old" not in text and text.endswith("<!-- end -->\nthe rest\n")
    assert brief.brief(content.comparisons) in text
    assert "](results/pictures/forest.svg)" in text
    assert "](results" not in markdown.filled(old, content, [])
    assert markdown.filled(text, content, [markdown.picture(markdown.FOREST)]) == text


def verdict(name: str, word: str, **more) -> Verdict:
    return Verdict(Claim(name, f"{name} it is", "Notes A: x", "cost", **more), word, [], "", NOTE)


NOTE = "rule younger than its records"


def test_theorems_are_listed_apart_and_stand_outside_the_tally(tmp_path):
    found = [verdict("so", CONFIRMED), verdict("always", THEOREM, theorem=True)]
    content = replace(gather(Results(tmp_path)), verdicts=found)
    text = markdown.results_page(content, ())
    assert "| all | 1 | 0 | 0 | 0 |" in text
    counted, apart = text.split("True by a theorem; checked numerically")
    assert "so it is" in counted and "always it is" not in counted and "always it is" in apart


def test_a_verdict_whose_rule_is_younger_than_its_records_says_so_where_it_is_shown(tmp_path):
    fake_results.fill(tmp_path, "qkv", ["long"])
    results = Results(tmp_path)
    content = gather(results, Ages(results, {}))
    judged = {one.claim.name: one for one in content.verdicts}
    assert judged["per_head_better_than_split"].note == NOTE
    assert f"| {NOTE}; " in markdown.results_page(content, ())
    assert all(one.note in ("", NOTE) for one in content.verdicts)
    assert not any(one.note for one in gather(results).verdicts)  # without ages nothing is said


def test_the_ages_of_rules_are_added_to_those_that_are_known(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ledger, "FILE", tmp_path / "rules.json")
    new, loose, *known = [*claims.rules(), *ledger.studies()]
    ages = {new.now: {"commit": "0" * 12, "date": "2026-01-01"}}
    monkeypatch.setattr(ledger, "first", lambda _, digest: ages.get(digest))
    before = {rule.now: {"what": rule.what, "name": "older"} for rule in known}
    after = report.grown(before)
    assert list(after.items())[:-1] == list(before.items())
    assert after[new.now] == {"what": "claim", "name": new.file.stem, **ages[new.now]}
    assert ledger.read(ledger.FILE) == after
    assert f"{loose.file.name}: not committed" in capsys.readouterr().err


def test_text_of_records_reaches_no_paragraph_unescaped(tmp_path):
    hostile = "<script>alert(1)</script>\n## title\n[x](javascript:alert(1))"
    environment = fake_results.ENVIRONMENT | {"cpu": hostile, "torch": hostile}
    changes = dict(model=hostile, precision=hostile, environment=environment)
    fake_results.fill(tmp_path, "optimizers", ["language"], **changes)
    content = gather(Results(tmp_path))
    text = markdown.results_page(content, ())
    assert "alert(1)" in text
    assert "<script" not in text and "\n## title" not in text and "](javascript" not in text


def test_reference_lines_stand_below_the_arms_in_nats_and_bits_per_byte(tmp_path):
    declared = fake_results.fill(tmp_path, "optimizers", ["language"])
    fake_results.lines(tmp_path, declared, "language", uniform=8.3, bigram=4.5, trigram=3.9)
    content = gather(Results(tmp_path))
    (one,) = content.comparisons["optimizers"]
    table = tables.arms(one)
    at = {head.text: number for number, head in enumerate(table.heads)}
    rows = {row[0].text: [cell.text for cell in row] for row in table.rows}
    assert list(rows)[-3:] == ["uniform", "bigram", "trigram"]
    assert rows["bigram"][at["test loss"]] == "4.500"
    assert rows["bigram"][at["bits per byte"]] == f"{4.5 / math.log(2) / 3:.3f}"
    assert rows["bigram"][at["verdict"]] == "adamw ends below"
    assert rows["trigram"][at["verdict"]] == "adamw ends above"
    loss = one.arm("adamw").test_loss.mean
    assert rows["adamw"][at["bits per byte"]] == f"{loss / math.log(2) / 3:.3f}"
    assert "| trigram (reference line) |" in markdown.results_page(content, ())


def test_of_images_the_line_has_an_accuracy_and_no_bits(tmp_path):
    declared = fake_results.fill(tmp_path, "optimizers", ["vision"])
    fake_results.lines(tmp_path, declared, "vision", softmax_regression=0.45)
    table = tables.arms(gather(Results(tmp_path)).comparisons["optimizers"][0])
    heads = [head.text for head in table.heads]
    assert "bits per byte" not in heads
    assert table.rows[-1][heads.index("accuracy")].text == "80.0 %"


def test_averaged_weights_have_a_column_where_runs_have_them(tmp_path):
    declared = fake_results.fill(tmp_path, "schedules", ["long"])
    heads = [head.text for head in tables.arms(averaging(tmp_path)).heads]
    assert "averaged weights" not in heads
    for file in (tmp_path / "records" / "schedules").glob("*.json"):
        one = json.loads(file.read_text())
        file.write_text(json.dumps(one | {"test_loss_averaged": 2.5}))
    table = tables.arms(averaging(tmp_path))
    assert [row[-1].text[:3] for row in table.rows] == ["2.5"] * len(declared.arms)


def averaging(folder):
    (one,) = Results(folder).comparisons("schedules", ["long"])
    return one


def test_the_chart_of_the_loss_has_the_lines_that_fit_into_it(tmp_path):
    declared = fake_results.fill(tmp_path, "optimizers", ["language"])
    fake_results.lines(
        *(tmp_path, declared, "language"), uniform=12.0, unigram=5.0, bigram=4.02, trigram=4.0
    )
    (one,) = gather(Results(tmp_path)).comparisons["optimizers"]
    for against in ("steps", "seconds"):
        drawn = charts.loss(one, against).to_dict()  # validated
        layers = {layer["mark"]["type"]: layer for layer in drawn["layer"]}
        rules, labels = (
            [row["line"] for row in layers[kind]["data"]["values"]] for kind in ("rule", "text")
        )
        assert rules == ["unigram", "bigram", "trigram"]
        assert labels == ["unigram", "bigram, trigram"]  # closer than a label is high
        least, most = layers["rule"]["encoding"]["y"]["scale"]["domain"]
        assert least < 4.0 and most < 12


def test_a_line_just_below_the_curves_widens_the_chart_and_one_far_below_does_not():
    known = Lines(
        {
            "unit": "tokens",
            "lines": [
                {"name": "bigram", "loss": 3.8, "validation_loss": 3.8},
                {"name": "trigram", "loss": 1.0, "validation_loss": 1.0},
            ],
        },
        None,
    )
    rows, least, most = line_layers.drawn(known, 4.0, 6.0)
    assert [row["line"] for row in rows] == ["bigram"] and 3.6 < least < 3.8 and most == 6.0
    assert line_layers.drawn(None, 4.0, 6.0) == ([], 4.0, 6.0)
