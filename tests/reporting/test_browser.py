"""The report's page in Chromium: what is drawn, what the keyboard can do, what axe-core says."""

import itertools
import shutil
from dataclasses import replace

import pytest

from bench.reporting import page as report_page
from bench.verdicts.claims import Claim
from bench.verdicts.judging import THEOREM, Verdict
from tests.helpers import fake_results, report_pages

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
pytestmark = pytest.mark.more


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    folder = report_pages.fill(tmp_path_factory.mktemp("results"))
    fake_results.fill(folder, "pilot", optimizer="adamw")  # no margin, so a layer is empty
    return report_pages.gather(folder)


@pytest.fixture(scope="module")
def file(content, tmp_path_factory):
    """The page, with a few claims that records bear on."""
    words = {"a1": "confirmed", "a2": "refuted", "b1": "refuted", "t1": THEOREM}
    claims = [
        Verdict(Claim(name, f"{name} holds", "?", name[:1], theorem=name == "t1"), word, [], "")
        for name, word in words.items()
    ]
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(report_page.page(replace(content, verdicts=claims)))
    return file


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def opened(browser, file):
    """Opens the page, drawn; closes its tabs."""
    tabs = []

    def open_page(width=1000, theme="light", **heard):
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        tabs.append(tab)
        for event, hear in heard.items():
            tab.on(event, hear)
        tab.goto(file.as_uri())
        tab.wait_for_selector("html[data-charts=drawn]", state="attached", timeout=60_000)
        return tab

    yield open_page
    for tab in tabs:
        tab.close()


@pytest.mark.parametrize(
    ("width", "theme"), list(itertools.product([400, 900, 1600], ["light", "dark"]))
)
def test_a_browser_draws_it_all_without_a_word_or_a_request(opened, file, width, theme):
    said, asked = [], []
    tab = opened(
        *(width, theme),
        console=lambda message: said.append(message.text),
        pageerror=lambda error: said.append(str(error)),
        request=lambda request: asked.append(request.url),
    )
    assert not said and asked == [file.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    drawn = tab.evaluate(
        """[...document.querySelectorAll("figure.chart")].map(figure => {
            const picture = figure.querySelector("svg.marks");
            const marks = picture?.querySelectorAll(".mark-symbol path, .mark-rect path").length;
            return marks && picture.clientWidth > 250 && picture.clientWidth <= figure.clientWidth;
        })"""
    )
    assert len(drawn) == 13 and all(drawn)


LUMINANCE = """([name, property]) => {
    const seen = getComputedStyle(document.querySelector(name))[property];
    const [r, g, b] = seen.match(/\\d+/g);
    return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
}"""


@pytest.mark.parametrize(("theme", "light"), [("light", False), ("dark", True)])
def test_text_of_page_and_charts_stands_out_in_both_themes(opened, theme, light):
    tab = opened(900, theme)
    for name in ("body", "h2", "figcaption"):
        assert (tab.evaluate(LUMINANCE, [name, "color"]) > 0.6) == light, name
    for name in (".role-axis-label text", ".role-title-text text", ".role-legend-label text"):
        assert (tab.evaluate(LUMINANCE, [name, "fill"]) > 0.6) == light, name
    assert (tab.evaluate(LUMINANCE, ["body", "backgroundColor"]) < 0.2) == light


@pytest.mark.parametrize(("width", "theme"), [(400, "light"), (1200, "dark"), (1200, "light")])
def test_axe_finds_nothing_serious(opened, width, theme):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    tab = opened(width, theme)
    tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    found = axe.Axe().run(tab).response["violations"]
    serious = [
        (one["id"], one["nodes"][0]["html"][:200])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert not serious


def test_the_first_key_leads_past_the_contents(opened):
    tab = opened()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the results"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"


def test_a_heading_sorts_its_table_by_the_keyboard(opened):
    tab = opened()
    head = tab.locator("#optimizers-language > .scroll thead th").nth(2)
    cells = tab.locator("#optimizers-language > .scroll tbody tr td:nth-child(3)")

    def losses():
        texts = cells.evaluate_all("all => all.map(one => one.firstChild.textContent)")
        return [float(text) for text in texts]

    head.locator("button").focus()
    for order, reverse in (("ascending", False), ("descending", True)):
        tab.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == order
        assert losses() == sorted(losses(), reverse=reverse) and len(set(losses())) > 2
    tab.locator("#optimizers-language > .scroll thead button").first.press("Enter")
    assert head.get_attribute("aria-sort") is None


def claims_of(tab):
    rows = tab.query_selector_all("tr[data-verdict]")
    return [row.get_attribute("id")[6:] for row in rows if row.is_visible()]


def test_claims_are_folded_and_found_by_words_and_by_verdict(opened):
    tab = opened()
    assert claims_of(tab) == []
    tab.locator("#claim-search").focus()
    tab.keyboard.type("HOLDS a2")
    assert claims_of(tab) == ["a2"]
    assert tab.locator("form.find output").inner_text() == "1 claim found"
    for _ in "HOLDS a2":
        tab.keyboard.press("Backspace")
    assert claims_of(tab) == []
    tab.keyboard.press("Tab")
    for found in (["a1"], ["a2", "b1"]):
        tab.keyboard.press("ArrowRight")
        assert claims_of(tab) == found
    tab.locator("form.find label", has_text=THEOREM).click()
    assert claims_of(tab) == ["t1"]
    assert tab.locator(".topic:visible").count() == 1


def test_a_link_to_a_claim_unfolds_it(opened):
    tab = opened()
    tab.evaluate("location.hash = '#claim-b1'")
    tab.wait_for_function("document.getElementById('claim-b1').checkVisibility()")


def test_one_filter_has_task_and_optimizer(opened):
    tab = opened()
    marks = "#optimizers-language figure .mark-symbol.role-mark path"
    before = tab.locator(marks).count()
    tab.locator("input[name=arm][value=muon]").focus()
    tab.keyboard.press("Space")
    tab.wait_for_function(
        "([marks, most]) => { const n = document.querySelectorAll(marks).length;"
        " return n > 0 && n < most; }",
        arg=[marks, before],
    )
    tab.locator("#task").focus()
    for _ in range(2):
        tab.keyboard.press("ArrowDown")
    assert not tab.locator("#optimizers-language").is_visible()
    assert tab.locator("#optimizers-vision").is_visible()


def test_a_batch_is_typed_and_its_overhead_read(opened, content):
    tab = opened()
    form = tab.locator("form.batch")
    points = content.steps["gpt2-cpu"]["optimizers"]["torch_muon"]["overhead"]
    for units, said, mark in (
        (512, "within what was measured", ""),
        (4096, "extrapolated: measured from 256 to 512", "~"),
        (131072, "more than ten times as far", "~"),
    ):
        form.locator("input").focus()
        tab.keyboard.press("Control+a")
        tab.keyboard.type(str(units))
        assert said in form.locator("output").inner_text()
        value = next(point["value"] for point in points if point["units"] == units)
        shown = form.locator("tbody tr").nth(1).locator("td").first.inner_text()
        assert shown.startswith(mark + "+")
        number = float(shown.lstrip("~+").removesuffix(" %").replace(",", ""))
        assert number / 100 == pytest.approx(value, rel=0.01)
    assert form.locator("tbody tr").first.locator("td").first.inner_text() == "reference"


def test_on_a_telephone_a_row_is_a_card_without_what_is_empty(opened):
    table = "#optimizers-language > .scroll table"
    tab = opened(400)
    assert not tab.locator(f"{table} td.empty").first.is_visible()
    cell = tab.locator(f"{table} td[data-head='test loss']").first
    assert cell.evaluate("one => getComputedStyle(one, '::before').content") == '"test loss"'
    tab.set_viewport_size({"width": 1200, "height": 900})
    assert tab.locator(f"{table} td.empty").first.is_visible()


def test_print_leaves_out_what_only_a_screen_can_do(opened):
    tab = opened()
    tab.emulate_media(media="print")
    assert not tab.locator("nav").is_visible() and not tab.locator("form.find").is_visible()
    assert tab.locator("#optimizers-language > .scroll table").is_visible()
