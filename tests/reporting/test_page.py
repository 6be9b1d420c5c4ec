"""The report as one HTML file: what it says, in which order, and that text stays text."""

import json
import re
import statistics
from dataclasses import replace

import pytest
from markupsafe import escape

from bench.reporting import answer, findings
from bench.reporting import page as report_page
from bench.verdicts.claims import Claim
from bench.verdicts.finding import Finding
from bench.verdicts.judging import Verdict
from tests.helpers import fake_results
from tests.helpers.report_pages import Parsed, gather

HOSTILE = "</script><script>alert('&amp;')</script><img src=x onerror=alert(1)>"


def test_the_page_says_what_was_found_and_what_is_missing(page, content):
    text = Parsed(page).text
    for words in (
        "At equal steps, which optimizer reaches the lower test loss",
        "adamw reaches a test loss of",
        "muon with seed 4; torch_muon with seed 0, 1, 2, 3, 4",
        "records/optimizers/broken.json: broken: not JSON",
        "python bench/train.py -m experiment=optimizers stage=tune arm=hybrid",
        "python bench/train.py experiment=qkv",  # not run
        "a run of mine",
        "Imagined Processor, 2 threads, torch 2.13.0+cpu, fp32; commit 0123456789",
        "hybrid qkv=per_head",
    ):
        assert words in text, words
    assert page == report_page.page(gather(content.results.folder))


def test_the_answer_comes_first_and_the_provenance_last(page, content):
    parsed = Parsed(page)
    every = [of["id"] for tag, of in parsed.elements if tag == "section" and "id" in of]
    parts = ["answer", "loss", "cost", "tuning", "claims", "not-run", "left-out", "other-runs"]
    assert [one for one in every if one in [*parts, "provenance"]] == [*parts, "provenance"]
    assert every[0] == "answer" and every[-1] == "provenance"
    found = answer.answer(content.comparisons)
    assert found.finding in parsed.text and found.limits in parsed.text
    before = page[: page.index('id="provenance"')]
    assert "Imagined Processor" not in before


def test_three_experiments_on_variants_have_a_section_each_with_their_finding(tmp_path):
    for name, condition in (("qkv", "long"), ("orthogonalizer", None), ("routing", None)):
        fake_results.fill(tmp_path, name, condition and [condition])
    content = gather(tmp_path)
    parsed = Parsed(report_page.page(content))
    for name, title in (("qkv", "Q, K and V"), ("routing", "Routing")):
        assert title in parsed.text
        assert findings.differences(content.comparisons[name]) in parsed.text
    assert "Coefficients" in parsed.text


def test_ids_are_unique_and_every_link_within_the_page_leads_somewhere(page):
    elements = Parsed(page).elements
    ids = [of["id"] for _, of in elements if "id" in of]
    assert len(set(ids)) == len(ids)
    links = {of["href"][1:] for tag, of in elements if tag == "a" and of["href"][:1] == "#"}
    assert links <= set(ids) and {"main", "answer", "provenance"} <= links


def test_every_figure_has_a_caption_that_says_a_finding(page):
    parsed = Parsed(page)
    figures = [of for tag, of in parsed.elements if tag == "figure"]
    assert len(figures) == page.count("<figcaption>") == len(parsed.specs())
    for spec in parsed.specs():
        assert escape(spec["description"]) in page
        assert spec["description"] != spec["title"]["text"]


def test_a_number_is_that_of_the_records(page, content):
    one = content.comparisons["optimizers"][0]
    losses = {
        arm: {run.record["seed"]: run.record["test_loss"] for run in one.arm(arm).runs}
        for arm in ("adamw", "hybrid")
    }
    mean = statistics.mean(losses["hybrid"][seed] - losses["adamw"][seed] for seed in range(5))
    shown = re.search(r"language</b>: .*?hybrid ([+−][\d.]+) \(", page).group(1)
    assert float(shown.replace("−", "-")) == pytest.approx(mean, abs=10 ** -(len(shown) - 3))


def test_text_from_records_stays_text(tmp_path):
    changes = dict(command=HOSTILE, model=HOSTILE, precision=HOSTILE)
    changes |= dict(environment=fake_results.ENVIRONMENT | {"cpu": HOSTILE, "commit": HOSTILE})
    fake_results.fill(tmp_path, "optimizers", ["language"], ["adamw", "hybrid"], [0, 1], **changes)
    odd = json.loads(next(tmp_path.glob("records/optimizers/*")).read_text())
    fake_results.write(tmp_path, odd | {"experiment": "mine", "cell": "<b onclick=alert(1)>"})
    (tmp_path / "records" / "mine" / "<img src=x onerror=alert(1)>.json").write_text(HOSTILE)
    fake_results.step(tmp_path, "a", (HOSTILE,))
    claim = Claim("a", HOSTILE, HOSTILE, HOSTILE, [], remark=HOSTILE)
    finding = Finding(HOSTILE, 1, 1, 1, 1, HOSTILE, note=HOSTILE, records=[f"a/{HOSTILE}"])
    lacking = Finding("", missing=HOSTILE)
    verdicts = [Verdict(claim, "depends", [finding, lacking], HOSTILE)]
    parsed = Parsed(report_page.page(replace(gather(tmp_path), verdicts=verdicts)))
    assert parsed.text.count(HOSTILE) > 10
    assert {tag for tag, _ in parsed.elements}.isdisjoint({"img", "iframe", "object", "link"})
    assert not [name for _, of in parsed.elements for name in of if name.startswith("on")]
    assert [kind for kind, _ in parsed.scripts if kind != "application/json"] == [None, None]
    assert any(HOSTILE in json.dumps(spec, ensure_ascii=False) for spec in parsed.specs())


def test_the_page_asks_nobody_for_anything(page):
    parsed = Parsed(page)
    assert not [of for _, of in parsed.elements if "src" in of or "http" in of.get("href", "")]
    assert "url(" not in page.split("</style>")[0] and "@import" not in page.split("</style>")[0]
    policy = next(of["content"] for _, of in parsed.elements if "http-equiv" in of)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert not [spec for spec in parsed.specs() if '"url"' in json.dumps(spec)]


def test_an_empty_folder_gives_a_page(tmp_path):
    text = Parsed(report_page.page(gather(tmp_path))).text
    assert "What 0 records of muonbench say" in text and "not enough evidence" in text
