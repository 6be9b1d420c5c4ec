"""The report's page as tests read it: its parts, and a results folder that has one of each."""

import json
from html.parser import HTMLParser
from pathlib import Path

from bench.reporting import content as report_content
from bench.studies.results import Results
from tests.helpers import fake_results


def gather(folder: Path) -> report_content.Content:
    return report_content.gather(Results(folder))


def fill(folder: Path) -> Path:
    """Two conditions; tuned, compared and A/A arms; a run missing; records that are none."""
    fake_results.fill(folder, "optimizers", arms=["adamw", "hybrid", "muon", "adamw_again"])
    next(folder.glob("records/optimizers/*language-muon-s4-*")).unlink()
    loose = json.loads(next(folder.glob("records/optimizers/*")).read_text())
    fake_results.write(folder, loose | {"experiment": "mine", "cell": "a run of mine"})
    (folder / "records" / "optimizers" / "broken.json").write_text("{")
    fake_results.step(folder, "gpt2-cpu", ("torch_muon", "hybrid qkv=fused", "hybrid qkv=per_head"))
    return folder


class Parsed(HTMLParser):
    """Elements with their attributes, the text outside scripts, and the scripts."""

    def __init__(self, page: str) -> None:
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
        """The descriptions of the charts."""
        data = [json.loads(text) for kind, text in self.scripts if kind == "application/json"]
        return [one for one in data if "$schema" in one]
