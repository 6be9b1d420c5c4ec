"""The trend of differences: one table a model, a row for each horizon, batch and what is equal."""

import pytest

from bench.reporting import markdown, page, trend
from bench.reporting.content import gather
from bench.studies.results import Results
from tests.helpers import fake_results


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    declared = fake_results.fill(folder, "language")
    fake_results.lines(folder, declared, "long", bigram=9.0)
    fake_results.fill(folder, "optimizers", ["language"])  # by the earlier protocol
    fake_results.fill(folder, "field", ["short"])
    return gather(Results(folder))


def test_rows_are_ordered_by_horizon_and_have_each_arms_difference(content):
    (found,) = trend.tables(content).values()
    heads = [head.text for head in found.heads]
    assert heads[:3] == ["trained for", "equal", "adamw"] and {"hybrid", "muon"} <= set(heads)
    assert [row[0].text for row in found.rows] == [
        "500 steps of 1,024 tokens",
        "2,000 steps of 1,024 tokens",
    ]
    (long,) = content.comparisons["language"][1:]
    hybrid = found.rows[1][heads.index("hybrid")]
    assert float(hybrid.text.replace("−", "-")) == pytest.approx(
        long.arm("hybrid").difference.estimate.mean, abs=1e-3
    )


def test_differences_are_in_bits_per_byte_where_these_are_known(content):
    (found,) = trend.tables(content).values()
    assert "bits per byte" not in found.rows[0][3].small
    assert "n=5; " in found.rows[1][3].small and "bits per byte" in found.rows[1][3].small


def test_results_and_page_have_the_table(content):
    assert "### Trend over horizon and batch" in markdown.results_page(content, ())
    assert 'aria-label="trend of gpt2_pico"' in page.page(content)
