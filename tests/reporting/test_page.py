"""The report as one HTML file: what it says, that text stays text, how a browser shows it."""

import json
import re
import shutil
import statistics
from dataclasses import replace
from html.parser import HTMLParser

import altair as alt
import jsonschema
import pytest

from bench.reporting import charts
from bench.reporting import content as report_content
from bench.reporting import page as report_page
from bench.reporting.style import GREY, styles
from bench.studies import study
from bench.studies import words as report_words
from bench.verdicts import evidence
from bench.verdicts.claims import Claim
from bench.verdicts.finding import Finding
from bench.verdicts.judging import THEOREM, Verdict
from tests.helpers import fake_results

HOSTILE = "</script><script>alert('&amp;')</script><img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


def gather(folder):
    return report_content.gather(evidence.Results(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two conditions; tuned, compared and A/A arms; a run missing; records that are none."""
    folder = tmp_path_factory.mktemp("results")
    fake_results.fill(folder, "optimizers", arms=["adamw", "hybrid", "muon", "adamw_again"])
    next(folder.glob("records/optimizers/*language-muon-s4-*")).unlink()
    loose = json.loads(next(folder.glob("records/optimizers/*")).read_text())
    fake_results.write(folder, loose | {"experiment": "mine", "cell": "a run of mine"})
    (folder / "records" / "optimizers" / "broken.json").write_text("{")
    fake_results.step(folder, "gpt2-cpu", ("torch_muon", "hybrid qkv=fused", "hybrid qkv=per_head"))
    return folder


@pytest.fixture(scope="module")
def content(folder):
    return gather(folder)


@pytest.fixture(scope="module")
def page(content):
    return report_page.page(content)


class Parsed(HTMLParser):
    """Elements with their attributes, the text outside scripts, and the scripts."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.scripts, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append((dict(attributes).get("type"), ""))

    def handle_data(self, data):
        if self.cdata_elem == "script":
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)
        elif self.cdata_elem != "style":
            self.text += data

    def specs(self):
        return [json.loads(text) for kind, text in self.scripts if kind == "application/json"]


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
    assert text.index("Verdicts", 200) < text.index("Experiments", 200) < text.index("Not run", 500)
    assert page == report_page.page(gather(content.results.folder))


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


def test_every_chart_is_valid_and_finite(page):
    specs = Parsed(page).specs()
    assert len(specs) == 1 + 6 + 7 + 1  # differences; language; vision, with accuracy; overhead
    for spec in specs:
        alt.LayerChart.validate(spec)
        assert spec["width"] == "container" and spec["title"]["text"] and spec["description"]
    with pytest.raises(jsonschema.ValidationError):
        alt.LayerChart.validate(specs[0] | {"layer": 3})


def colors(node):
    """Of arms by name, in all scales of a chart."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return {}
    found = {}
    for part in node.values():
        found |= colors(part)
    color = node.get("color")
    if isinstance(color, dict) and color.get("field") == "arm":
        found |= dict(zip(color["scale"]["domain"], color["scale"]["range"], strict=True))
    return found


def test_an_arm_has_one_colour_in_all_charts_and_experiments(page):
    seen = {}
    for spec in Parsed(page).specs():
        for name, color in colors(spec).items():
            assert seen.setdefault(name, color) == color
    assert {"adamw", "hybrid", "muon", "adamw_again"} <= seen.keys()
    for name in study.declared():
        declared = study.load(name)
        found = styles(declared.arms, declared.again())
        assert len(set(found.values())) == len(found), name
        assert len({style.color for style in found.values()}) == len(found), name
        for arm, style in found.items():
            assert seen.setdefault(arm, style.color) == style.color, (name, arm)


def test_variants_of_an_optimizer_are_shades_of_its_colour_with_other_shapes():
    found = styles(["hybrid qkv=fused", "adamw", "hybrid qkv=split", "hybrid qkv=per_head"])
    assert found["hybrid qkv=fused"] == styles(["hybrid"])["hybrid"]
    variants = [style for name, style in found.items() if "hybrid" in name]
    assert len({v.color for v in variants}) == len({v.shape for v in variants}) == 3


def values(chart):
    """The rows of a chart's data."""
    found = chart.to_dict()
    kept = [layer.get("data") for layer in found["layer"]] + [found.get("data")]
    named = found.get("datasets", {})
    return [row for data in kept if data for row in data.get("values", named.get(data.get("name")))]


def domain(chart):
    """Of the vertical axis."""
    layers = chart.to_dict()["layer"]
    return next(
        one["encoding"]["y"]["scale"]["domain"]
        for one in layers
        if "domain" in one["encoding"]["y"].get("scale", {})
    )


def test_loss_charts_show_the_end_and_leave_noise_arms_out(content):
    one = content.comparisons["optimizers"][0]
    for against, least in (("steps", 600), ("units", 600 * 1024), ("seconds", 20)):
        rows = values(charts.loss(one, against))
        assert {row["arm"] for row in rows} == {"adamw", "hybrid", "muon"}
        assert max(row["x"] for row in rows) >= least
    assert domain(charts.loss(one, "steps"))[0] > 3
    assert "adamw_again" in {row.get("arm") for row in values(charts.differences([one]))}
    assert colors(charts.differences([one]).to_dict())["adamw_again"] == GREY


def test_one_seed_has_no_band_no_interval_and_no_verdict(tmp_path):
    fake_results.fill(tmp_path, "cost", ["gpt2"])
    one = gather(tmp_path).comparisons["cost"][0]
    chart = charts.loss(one, "steps")
    assert not [row for row in values(chart) if "low" in row]
    assert not [layer for layer in chart.to_dict()["layer"] if layer["mark"]["type"] == "area"]
    assert "one run an arm" in chart.to_dict()["description"]
    assert "One seed, not tested: " in report_words.answer(one)
    assert "Optimizer state against adamw's: hybrid −50.0 %" in report_words.answer(one)
    for chart in (charts.tuning(one), charts.accuracy(one)):
        assert chart is None
    assert charts.differences([one]) is None


def test_the_band_of_two_seeds_does_not_hide_the_curves(tmp_path):
    fake_results.fill(tmp_path, "optimizers", ["language"], ["adamw"], [0, 1])
    other = json.loads(next(tmp_path.glob("records/optimizers/*-s1-*")).read_text())
    higher = [line | {"val_loss": line["val_loss"] + 1} for line in other["curve"]]
    fake_results.write(tmp_path, other | {"curve": higher})
    chart = charts.loss(gather(tmp_path).comparisons["optimizers"][0], "steps")
    rows, (least, most) = values(chart), domain(chart)
    assert min(row["low"] for row in rows) < 0  # 12.7 standard errors
    assert least > 3 and most < 10
    assert all(least <= row["bottom"] < row["top"] <= most for row in rows)


def test_edges_and_divergence_are_shown(tmp_path):
    fake_results.fill(tmp_path, "optimizers", ["language"], ["adamw", "hybrid"])
    for file in tmp_path.glob("records/optimizers/*-adamw-s100-*"):
        one = json.loads(file.read_text())
        worst = one["lr_scale"] == 8
        lost = {"status": "diverged", "val_loss": None, "test_loss": None} if worst else {}
        fake_results.write(tmp_path, one | {"val_loss": 9 - one["lr_scale"]} | lost)
    for file in tmp_path.glob("records/optimizers/*-hybrid-s100-*"):
        one = json.loads(file.read_text())
        fake_results.write(tmp_path, one | {"val_loss": 9 - one["lr_scale"]})
    content = gather(tmp_path)
    one = content.comparisons["optimizers"][0]
    rows = values(charts.tuning(one))
    assert {row["arm"] for row in rows if row.get("note")} == {"hybrid"}
    assert {row["rate"] for row in rows if row["arm"] == "adamw" and "note" in row} == {4}
    assert "At the edge of the grid: the rate of hybrid;" in report_words.answer(one)
    assert "edge of the grid" in Parsed(report_page.page(content)).text


def test_steps_to_the_target_count_the_runs_that_never_reach_it(content):
    arm = content.comparisons["optimizers"][0].arms[0]
    assert report_words.to_target(replace(arm, steps_to_target=[100, None, 200])) == (
        "200",
        "1 of 3 never",
    )
    late = replace(arm, steps_to_target=[100, None, None])
    assert report_words.to_target(late) == ("not reached", "2 of 3 never")
    assert report_words.to_target(replace(arm, steps_to_target=[])) == ("–", "")


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_static_chart_is_the_same_picture_each_time(content, tmp_path, suffix):
    chart = charts.loss(content.comparisons["optimizers"][0], "steps")
    first = charts.static(chart, tmp_path / f"a.{suffix}").read_bytes()
    assert charts.static(chart, tmp_path / f"b.{suffix}").read_bytes() == first
    assert b"<svg" in first[:100] or first[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"a.{suffix}", f"b.{suffix}"]


def test_an_empty_folder_gives_a_page(tmp_path):
    text = Parsed(report_page.page(gather(tmp_path))).text
    assert "What 0 records say" in text and "not enough evidence" in text


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


@pytest.mark.more
@pytest.mark.parametrize("width", [400, 1600])
def test_a_browser_draws_it_all_without_a_word_or_a_request(page, browser, tmp_path, width):
    file = tmp_path / "report.html"
    file.write_text(page)
    tab = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    tab.wait_for_selector("html[data-charts=drawn]", state="attached", timeout=60_000)
    assert not said and asked == [file.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    drawn = tab.evaluate(
        """[...document.querySelectorAll("figure.chart")].map(figure => {
            const picture = figure.querySelector("svg.marks");
            const marks = picture?.querySelectorAll(".mark-symbol path, .mark-rect path").length;
            return marks && picture.clientWidth > 250 && picture.clientWidth <= figure.clientWidth;
        })"""
    )
    assert len(drawn) == 15 and all(drawn)
    tab.close()


@pytest.mark.more
def test_a_reader_can_ask_for_the_claims_of_one_verdict(content, browser, tmp_path):
    every = ["a1", "a2", "b1", "t1"]
    claims = [Claim(name, name, "?", name[:1], theorem=name == "t1") for name in every]
    words = ("confirmed", "refuted", "refuted", THEOREM)
    verdicts = [Verdict(c, word, [], "") for c, word in zip(claims, words, strict=True)]
    file = tmp_path / "report.html"
    file.write_text(report_page.page(replace(content, verdicts=verdicts, comparisons={})))
    tab = browser.new_page()
    tab.goto(file.as_uri())
    for asked, shown in (
        ("refuted", ["a2", "b1"]),
        ("confirmed", ["a1"]),
        (THEOREM, ["t1"]),
        ("all 4", every),
    ):
        tab.get_by_text(asked).first.click()
        found = [row.get_attribute("id") for row in tab.query_selector_all("tr[data-verdict]")]
        visible = [name for name in found if tab.locator(f"#{name}").is_visible()]
        assert visible == [f"claim-{name}" for name in shown]
        assert tab.locator(".topic:visible").count() == len({name[0] for name in shown})
    tab.close()
