"""results/report.html: a report's whole content as one file that opens offline.

Text from records reaches the page only through Jinja's escaping. A policy in the page lets the
browser run no script but the two written here, and load nothing.
"""

import base64
import hashlib
from pathlib import Path

import altair as alt
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.display import palette
from bench.reporting import sections
from bench.reporting import tables as report_tables
from bench.reporting.content import Content
from bench.verdicts import waiting
from bench.verdicts.judging import CONFIRMED, DEPENDS, OPEN, REFUTED, THEOREM

HERE = Path(__file__).parent
SIGNS = {CONFIRMED: "✓", REFUTED: "✗", DEPENDS: "◐", OPEN: "?", THEOREM: "∎"}


def page(content: Content) -> str:
    """The whole HTML; the same content gives the same text."""
    template = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html")
    version = alt.SCHEMA_VERSION.removeprefix("v").rsplit(".", 1)[0]
    scripts = [
        # The type stub requires a snippet, which is optional.
        vl_convert.javascript_bundle(vl_version=version),  # type: ignore[call-arg]
        (HERE / "page.js").read_text(encoding="utf-8"),
    ]
    judged, without = waiting.split(content.verdicts)
    results = content.results
    return template.render(
        scripts=scripts,
        policy=policy(scripts),
        style=(HERE / "page.css").read_text(encoding="utf-8") + dark(),
        signs=SIGNS,
        counts={word: sum(v.verdict == word for v in content.verdicts) for word in SIGNS},
        own=sections.your_runs(content),
        opening=sections.opening(content),
        parts=sections.parts(content),
        cost=sections.cost(content),
        tuning=sections.tuning(content),
        topics=sections.topics(judged),
        waiting=waiting.line(without),
        without=[(one.claim, waiting.needs(one)) for one in without],
        communication=sections.communication(content) if content.shared else None,
        not_run=content.not_run,
        left_out=[(results.place(file), reason) for file, reason in content.left_out],
        loose=report_tables.loose([(results.place(r.file), r) for r in content.loose]),
        records=len({run.file for run in results.archive.runs}),
        provenance=sections.provenance(content),
    )


def policy(scripts: list[str]) -> str:
    """A Content-Security-Policy that allows only these scripts, and nothing from the network."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; form-action 'none'"
    )


def dark() -> str:
    """Rules for the dark theme, which lighten the dark colours of the charts."""
    shades = [palette.shade(one, n) for one in palette.OPTIMIZERS.values() for n in range(5)]
    every = dict.fromkeys([*shades, *palette.OTHERS, palette.TEXT, palette.WARNING])
    rules = (
        f'.chart [{kind}="{one}"] {{ {kind}: {lighter}; }}'
        for one in every
        if (lighter := palette.on_dark(one)) != one
        for kind in ("fill", "stroke")
    )
    return "@media screen and (prefers-color-scheme: dark) {\n" + "\n".join(rules) + "\n}\n"
