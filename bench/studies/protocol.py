"""`bench/train.py experiment=…`: tune every arm, then train all with their best settings.

A study consists of sweeps of the trainer, one per arm and condition. Hydra's launchers, skipping of
finished cells and resuming from checkpoints therefore work as for any sweep.
"""

from collections.abc import Callable

from bench.display import terminal
from bench.processes import world
from bench.records import archive
from bench.studies import comparison, lines, tables
from bench.studies.campaign import Campaign
from bench.studies.forecast import Forecast
from bench.studies.plan import Sweep
from bench.studies.request import read
from bench.studies.study import PILOT, TUNE
from bench.studies.words import answer


def run(arguments: list[str], job: Callable[[], None], say: Callable[[str], None]) -> None:
    """Run the whole study, or the part that stage, condition and arm select.

    job: trains the run in sys.argv; it is called once per sweep.
    Raises UserError before anything is trained.
    """
    request = read(arguments)
    campaign = Campaign(request)
    say(f"experiment={request.experiment}: {campaign.study.question}")
    ready = campaign.ready()
    clock = Forecast(campaign.to_come(ready), campaign.sample, world.rank() == 0)
    for line in clock.summary():
        say(line)
    if campaign.settings.inspect:
        terminal.show(tables.plan(clock))
        return
    campaign.begin(clock)
    for condition, settings in campaign.baselines():
        lines.make(settings, condition, say)
    trained: set[Sweep] = set()
    while todo := [one for one in ready if one.sweep not in trained]:
        for planned in todo:
            campaign.train(planned, job, clock)
            trained.add(planned.sweep)
        ready = campaign.ready()
    best = campaign.best(asked=request.stage not in (PILOT, TUNE))
    if best:
        terminal.show(tables.tuning(best))
    records = archive.read(campaign.runs.parent)
    known, _ = lines.read(campaign.runs.parent)
    setups = {p.sweep.condition: p.setup for p in ready}
    for condition in campaign.study.conditions:
        found = comparison.compare(records, campaign.study, condition, setups.get(condition))
        if found.arms:
            said = f"{condition}: {answer(lines.beside(found, known))}"
            terminal.show("", said, tables.arms(found), "")
    running, waiting = sum(map(campaign.running, ready)), sum(campaign.to_come(ready).values())
    if running:
        ended = f"{running} runs are running elsewhere"
        ended += (
            f", {waiting} wait for them; then run the same command again"
            if waiting > running
            else ""
        )
    elif waiting:
        ended = f"{waiting} runs have not ended{campaign.waits()}"
    else:
        ended = "all runs asked for have ended"
    for name in campaign.costs_missing():
        say(f"seconds need results/steps/{name}.json: its command is in docs/leaderboard.md")
    say(f"experiment={request.experiment}: {ended}; next: bench/report.py")
