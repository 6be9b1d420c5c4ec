"""Collect what a machine with a GPU but no network needs besides the checkout: carried/.

python scripts/gpu_pack.py

carried/wheels has the packages that such a machine lacks, in the versions of constraints.txt, as
wheels for any Python and machine; carried/cache.tar.gz has the prepared data. Ends with a list of
both and the command to type there. Exit status 1 if the checkout has uncommitted changes, if a
wheel fits only one kind of machine, or if tracked files and carried/ exceed the size limit.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CARRIED = ROOT / "carried"  # ignored by git
MOST = 64 * 2**20  # size limit, bytes
PACKAGES = (
    *("antlr4-python3-runtime", "omegaconf", "hydra-core"),
    *("gram-newton-schulz", "heavyball", "pytorch-optimizer", "optimuon"),  # peers
)
MODELS = ("gpt2", "gpt2_nano", "vit")  # their data is prepared
PREPARE = """
import sys
from hydra import compose, initialize_config_dir
from bench.settings import config
from bench.settings.schema import CONF
from bench.training import prepare
for model in sys.argv[1:]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        prepare.data(config.settle(compose("train", overrides=[f"model={model}"])))
"""


class Refused(Exception):
    """Why nothing can be carried, in one line."""


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    try:
        commit = clean_commit()
        shutil.rmtree(CARRIED, ignore_errors=True)
        wheels(CARRIED / "wheels", (ROOT / "constraints.txt").read_text(encoding="utf-8"))
        cache(CARRIED / "cache")
        shutil.make_archive(str(CARRIED / "cache"), "gztar", CARRIED / "cache")
        shutil.rmtree(CARRIED / "cache")  # packed, it is half as large
        print("\n".join(listing(CARRIED, tracked())))
    except Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 1
    print(f"there, with {CARRIED.name}/ beside the tracked files:")
    print(f"  MUONBENCH_COMMIT={commit} OUT=FOLDER scripts/gpu.sh first-light  # then: run")
    return 0


def clean_commit() -> str:
    """The checked-out commit. Raises Refused if files differ from it."""
    if changed := git("status", "--porcelain").splitlines():
        raise Refused(f"{len(changed)} files are not as committed: the records would name no code")
    return git("rev-parse", "HEAD").strip()


def wheels(folder: Path, constraints: str) -> None:
    """Fetch or build the packages' wheels. Raises Refused for one that is not for any machine."""
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", constraints.replace("_", "-"), re.M))
    asked = [f"{name}=={pinned[name]}" for name in PACKAGES]
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    subprocess.run([*pip, *asked], check=True)
    refuse_bound([wheel.name for wheel in folder.iterdir()])


def refuse_bound(names: list[str]) -> None:
    """Raises Refused for a wheel that does not fit other Pythons or machines."""
    bound = [name for name in names if not re.search(r"-(py2\.)?py3-none-any\.whl$", name)]
    if bound:
        raise Refused(f"{', '.join(bound)}: only for this Python or machine")


def cache(folder: Path) -> None:
    """Prepare the data of MODELS, which is the same on every machine."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", PREPARE, *MODELS], cwd=ROOT, env=environment, check=True)
    for lock in folder.rglob("*.lock"):
        lock.unlink()


def tracked() -> int:
    """Bytes of the tracked files."""
    return sum((ROOT / name).stat().st_size for name in git("ls-files", "-z").split("\0") if name)


def listing(folder: Path, beside: int, most: int = MOST) -> list[str]:
    """The carried files with their sizes, one per line. Raises Refused if they are too large.

    beside: bytes of the tracked files.
    """
    sizes = {
        str(file.relative_to(folder.parent)): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    total = beside + sum(sizes.values())
    if total > most:
        raise Refused(
            f"{total / 2**20:.1f} MiB with the tracked files, {most / 2**20:g} may travel"
        )
    sizes |= {"tracked files": beside, f"in all, of {most / 2**20:g} MiB": total}
    return [f"{size / 2**20:8.2f} MiB  {name}" for name, size in sizes.items()]


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
