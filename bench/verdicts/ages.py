"""Whether a rule is older than the records it applies to, from results/rules.json and git."""

from functools import cached_property
from typing import Any

from bench.records.archive import Run
from bench.records.ledger import Entries, History
from bench.studies.results import Results

YOUNGER = "rule younger than its records"
Studies = dict[str, str | None]  # hash of the declaration, by experiment


class Ages:
    """The ages of rules, compared with those of the records in a results folder.

    rules: the content of results/rules.json; history: of the code, by default the checkout's.
    """

    def __init__(self, results: Results, rules: Entries, history: History | None = None) -> None:
        self.results = results
        self.rules = rules
        self.history = history or History.here()

    @cached_property
    def runs(self) -> dict[str, list[Run]]:
        """Runs by the path of their record, one for each part of an experiment."""
        found: dict[str, list[Run]] = {}
        for run in self.results.archive.runs:
            found.setdefault(self.results.place(run.file), []).append(run)
        return found

    def note(self, rule: str | None, studies: Studies, files: list[str]) -> str:
        """The records behind a verdict that are older than its rules; "" if there are none.

        rule: the hash of the claim's rule; files: below the results folder. A record that existed
        when a rule was made could have shaped it; only a record of a new seed is evidence for it.
        """
        older = sum(not self.stood(rule, studies, file) for file in files)
        if not older:
            return ""
        return YOUNGER if older == len(files) else f"{YOUNGER}: {older:,} of {len(files):,}"

    def stood(self, rule: str | None, studies: Studies, file: str) -> bool:
        """Whether the claim's rule and the experiment's declaration existed before a record."""
        runs = self.runs.get(file, [])
        record = runs[0].record if runs else self.results.json(file) or {}
        wanted = {studies[run.experiment] for run in runs if run.experiment in studies}
        wanted -= {record.get("study")}  # noted when the run began
        name, environment = f"{record.get('cell')}.json", record.get("environment")
        if not isinstance(environment, dict):
            environment = {}
        return all(self._known(one, name, environment) for one in {rule} | wanted)

    def _known(self, rule: str | None, name: str, environment: dict[str, Any]) -> bool:
        entry = self.rules.get(rule or "")
        if entry is None or self.history.published_before(entry, name):
            return False
        return self.history.stood(entry, environment)
