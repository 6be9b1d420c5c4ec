"""The W&B dashboard: a workspace and a report, both built from the list of charts below.

Only this file has the names of what runs log; its test compares each with what runs really log.
Needs `wandb-workspaces` (extra `dashboard`). Only `save()` on the results needs an account and the
network.
"""

from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces.reports.v2.interface import BlockTypes

from bench.tracking.figures import AXES

NAME = "muonbench"
# Runs that agree in these form one line, their mean; readers can filter by other settings.
GROUPS = ("model.name", "optimizer.name", "qkv_used", "optimizer.lr_scale")
SWEEP = (*GROUPS, "seed")
VALIDATION, TEST = "val/loss", "test/loss"
LOSSES = {VALIDATION: "validation loss", "train/loss": "training loss"}  # nats
SHARE, OVERHEAD, BATCH = "optim/share", "optim/overhead", "optim/overhead_batch"
MFU, STATE, PEAK = "perf/mfu", "memory/optimizer_state_gib", "memory/peak_gib"
ROLES = ("hidden", "embedding", "position", "vector")  # present in both GPT-2 and ViT
TABLE_CONFIG = (*SWEEP, "train.steps", "stage")
TABLE_SUMMARY = ("run/status", VALIDATION, TEST, SHARE, OVERHEAD, BATCH, STATE, PEAK, MFU)
MAX_LINES = 50  # W&B's default is 10 groups
WIDTH, HEIGHT, COLUMNS = 12, 8, 2  # of a chart in the report, whose rows are 24 wide


@dataclass(frozen=True)
class Part:
    """A section of the dashboard: its charts, how to read them, and which runs form one line."""

    title: str
    reading: str
    charts: tuple[Any, ...]
    groups: tuple[str, ...] = GROUPS


def parts() -> list[Part]:
    """All sections, built anew on each call: workspace and report change the charts they get."""
    return [
        Part(
            "Loss",
            "A line is one model, optimizer, treatment of QKV and lr_scale: the mean over its "
            "runs, in the band from the lowest to the highest. Filter the table to one experiment "
            "(Group), so that only seeds are averaged and not other settings too. Tokens and "
            "images compare arms at equal data. Seconds are training time by the clock of each "
            "run's machine: compare runs made on one machine under the same load. Losses of "
            "different models do not compare. Rates are tuned on the validation loss; results are "
            "the test loss, in the table. Differences to AdamW, paired by seed: bench/report.py.",
            (
                *(loss_over(loss, axis) for loss in LOSSES for axis in AXES),
                line(["val/perplexity"], "Validation perplexity", "perplexity"),
                line(["val/bits_per_byte"], "Validation loss of text", "bits per byte"),
                line(["val/accuracy"], "Validation accuracy", "share of images"),
            ),
        ),
        Part(
            "Optimizer",
            "Rates are those of each role. An update is what a step changes in a role's weights, "
            "decay included: its root mean square, and that over the weights' own. Gradients are "
            "as they were before clipping; a share of clipped steps near 1 says that the clipping "
            "sets the step, not the rate.",
            (
                line(of_roles("lr"), "Rates", "rate"),
                line(of_roles("update/weight_ratio"), "Updates to weights", "ratio of RMS"),
                line(of_roles("update/rms"), "Updates", "RMS"),
                line(of_roles("weight/rms"), "Weights", "RMS"),
                line(["grad/norm"], "Gradient norm", "norm, before clipping"),
                line(of_roles("grad/norm"), "Gradient norms by role", "norm, before clipping"),
                line(["grad/clipped_share"], "Clipped steps", "share of all so far"),
                by_layer("attention/max_logit", "Attention logits by layer", "largest"),
            ),
        ),
        Part(
            "Time",
            "The share is the optimizer's part of a run's own step. The overhead is what a step "
            "costs more than the same step with AdamW, timed alternately in one process. It falls "
            "about in proportion as the batch grows, so read it beside the batch, here in tokens "
            "(images) of a step. Model FLOPs are those of forward and backward alone.",
            (
                line([SHARE], "Optimizer share over time", "optimizer time / step time"),
                line(["perf/step_ms"], "Step", "ms"),
                line(["perf/optimizer_ms"], "Optimizer's part of a step", "ms"),
                line(["perf/tokens_per_s", "perf/images_per_s"], "Throughput", "per second"),
                line(["perf/tflops"], "Model FLOPs", "TFLOP/s"),
                bar(SHARE, "Optimizer share", "optimizer time / step time"),
                bar(OVERHEAD, "Overhead", "step time / step time with AdamW − 1"),
                overhead_over_batch(),
                bar(MFU, "Model FLOPs utilization", "of the measured peak"),
            ),
        ),
        Part(
            "Memory",
            "State is what the optimizer keeps between steps, counted tensor by tensor. The peak "
            "is the most the run held, with weights, gradients and activations, so a saving of "
            "state is a smaller part of it; on a CPU it differs between runs of one cell. Over "
            "time: the most since the evaluation before.",
            (
                line([PEAK], "Memory over time", "GiB"),
                bar(STATE, "Optimizer state", "GiB"),
                bar(PEAK, "Peak memory", "GiB"),
            ),
        ),
        Part(
            "Sweep",
            "A line is one run, from its settings to its validation loss. Drag along the last axis "
            "to keep the best runs and see where they come from. A best lr_scale at the edge of "
            "what was tried says that the grid was too narrow.",
            (settings_and_loss(),),
            groups=(),
        ),
        Part(
            "Runs",
            "One row a run, the lowest validation loss first. A diverged run is a result too. One "
            "run shows no difference: compare over five or more paired seeds.",
            (),
            groups=(),
        ),
    ]


def loss_over(loss: str, axis: str) -> wr.LinePlot:
    unit = {"step": "steps", "seconds": "training seconds"}.get(axis, axis)
    title = f"{LOSSES[loss].capitalize()} against {unit}"
    return line([loss], title, f"{LOSSES[loss]} (nats)", axis, unit)


def of_roles(name: str) -> list[str]:
    return [f"{name}/{role}" for role in ROLES]


def line(
    names: list[str], title: str, unit: str, axis: str = "step", unit_x: str = "steps"
) -> wr.LinePlot:
    return wr.LinePlot(
        title=title,
        x=axis,
        y=[*names],
        title_x=unit_x,
        title_y=unit,
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        max_runs_to_show=MAX_LINES,
    )


def by_layer(name: str, title: str, unit: str) -> wr.LinePlot:
    """Of as many layers as a model has."""
    chart = line([], title, unit)
    chart.metric_regex = f"{name}/.*"
    return chart


def bar(name: str, title: str, unit: str) -> wr.BarPlot:
    return wr.BarPlot(
        title=title,
        metrics=[name],
        title_x=unit,
        groupby_aggfunc="median",
        groupby_rangefunc="minmax",
        max_bars_to_show=MAX_LINES,
    )


def overhead_over_batch() -> wr.ScatterPlot:
    return wr.ScatterPlot(
        title="Overhead over the batch",
        x=wr.SummaryMetric(BATCH),
        y=wr.SummaryMetric(OVERHEAD),
        log_x=True,
    )


def settings_and_loss() -> wr.ParallelCoordinatesPlot:
    settings = [
        wr.ParallelCoordinatesPlotColumn(
            metric=wr.Config(name), log=name == "optimizer.lr_scale" or None
        )
        for name in SWEEP
    ]
    loss = wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(VALIDATION))
    return wr.ParallelCoordinatesPlot(
        title="Settings and validation loss", columns=[*settings, loss]
    )


def columns() -> list[str]:
    """The table's columns by W&B's names."""
    config = [f"config:{_stored(name)}" for name in TABLE_CONFIG]
    return ["run:displayName", *config, *(f"summary:{name}" for name in TABLE_SUMMARY)]


def _stored(name: str) -> str:
    """W&B keeps each top level setting under `value`: optimizer.name is optimizer.value.name."""
    first, _, rest = name.partition(".")
    return f"{first}.value.{rest}" if rest else f"{first}.value"


def workspace(entity: str, project: str) -> ws.Workspace:
    """All charts above the table of runs, which is grouped."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            ws.Section(name=part.title, panels=list(part.charts), is_open=True)
            for part in parts()
            if part.charts
        ],
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=MAX_LINES),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(name) for name in GROUPS],
            order=[ws.Ordering(ws.Summary(VALIDATION))],
            pinned_columns=columns(),
        ),
    )


def report(entity: str, project: str) -> wr.Report:
    """The same charts, with a text in each section that says how to read it."""
    blocks: list[BlockTypes] = []
    for part in parts():
        for i, chart in enumerate(part.charts):
            row, column = divmod(i, COLUMNS)
            chart.layout = wr.Layout(x=WIDTH * column, y=HEIGHT * row, w=WIDTH, h=HEIGHT)
        runs = wr.Runset(  # in the report's own project
            name="by arm and rate" if part.groups else "each run",
            groupby=[f"config.{name}" for name in part.groups],
            order=[wr.OrderBy(wr.SummaryMetric(VALIDATION), ascending=True)],
            visible_columns=columns(),
        )
        grid = wr.PanelGrid(runsets=[runs], panels=list(part.charts))
        blocks += [wr.H2(part.title), wr.P(part.reading), grid]
    return wr.Report(
        entity=entity,
        project=project,
        title=f"{NAME} optimizers compared",
        description="Loss, time and memory of each optimizer, from the runs of this project.",
        blocks=blocks,
        width="fluid",
    )


def specification(workspace: ws.Workspace) -> dict[str, Any]:
    """The specification that would be sent to W&B."""
    return workspace._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)


def outline(report: wr.Report) -> dict[str, Any]:
    """The report in short: each section's text and its charts' titles."""
    sections = [
        {"title": head.text, "text": text.text, "charts": [chart.title for chart in grid.panels]}
        for head, text, grid in zip(*[iter(report.blocks)] * 3, strict=True)
    ]
    return {"title": report.title, "sections": sections}
