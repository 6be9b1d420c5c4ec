"""Build a project's W&B dashboard: a workspace and a report on its runs.

python scripts/wandb_dashboard.py ENTITY PROJECT [--dry-run]

Each call makes a new workspace and a new report and prints their addresses. With --dry-run it
prints the workspace's specification and the report's outline as JSON, without an account or
network.
"""

import argparse
import json
import sys

try:
    from bench.tracking import dashboard
except ModuleNotFoundError as missing:
    if missing.name != "wandb_workspaces":
        raise
    sys.exit("wandb-workspaces is not installed: .venv/bin/pip install -e '.[dashboard]'")

import wandb

from bench.settings.errors import UserError


def refuse_unknown(entity: str, project: str) -> None:
    """Raise UserError if the project does not exist, because saving a report would create it."""
    names = [one.name for one in wandb.Api().projects(entity)]
    if project not in names:
        known = ", ".join(names[:10]) or "none"
        raise UserError(f"PROJECT={project}: {entity} has no such project; it has {known}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("entity", metavar="ENTITY", help="the user or team that owns the project")
    parser.add_argument("project", metavar="PROJECT", help="where the runs are logged")
    parser.add_argument("--dry-run", action="store_true", help="print what would be made")
    asked = parser.parse_args()
    workspace = dashboard.workspace(asked.entity, asked.project)
    report = dashboard.report(asked.entity, asked.project)
    if asked.dry_run:
        plan = {
            "workspace": dashboard.specification(workspace),
            "report": dashboard.outline(report),
        }
        print(json.dumps(plan, indent=1, ensure_ascii=False))
        return 0
    try:
        wandb.setup(settings=wandb.Settings(silent=True))  # no question for a key
        refuse_unknown(asked.entity, asked.project)
        print(f"workspace: {workspace.save().url}")
        print(f"report: {report.save().url}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except wandb.errors.UsageError:
        print("not logged in to W&B: .venv/bin/wandb login", file=sys.stderr)
        return 1
    except Exception as error:  # any error of the service or the network
        reason = " ".join(str(error).split())[:300]
        print(f"W&B did not make the dashboard: {reason}", file=sys.stderr)
        print("Check ENTITY, the network and .venv/bin/wandb login", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
