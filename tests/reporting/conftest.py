"""A report of made-up records, once for each file of tests."""

import pytest

from bench.reporting import page as report_page
from tests.helpers import report_pages
from tests.helpers.report_pages import gather


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return gather(report_pages.fill(tmp_path_factory.mktemp("results")))


@pytest.fixture(scope="module")
def page(content):
    return report_page.page(content)
