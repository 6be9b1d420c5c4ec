"""Run the parts of a GPU measurement one after another, each with a time limit: scripts/gpu.sh.

python scripts/gpu_parts.py first-light|run

Writes three files to $OUT as it runs: CALL.jsonl has one line per part, CALL.log the output of all
parts, CALL.tar the records. A part that fails or exceeds its time is noted, and the next one
follows. Exit status 1 if one did not finish.
"""

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from gpu_plan import LIMITS, PARTS, Part

ROOT = Path(__file__).resolve().parent.parent
CARRIED = ROOT / "carried"
REHEARSAL, COMMIT = "MUONBENCH_REHEARSAL", "MUONBENCH_COMMIT"  # environment variables
PATIENCE = 10  # a rehearsal tries the parts on any machine, however slow or busy
LAST_LINES = 12  # lines of a part's output in its line of CALL.jsonl
# Results of a part to collect: complete files, which are moved into place after writing.
FINISHED = ("steps/*.json", "steps/*.svg", "ortho/**/*.json", "ceilings/*.json")
OF_A_RUN = ("record.json", "part_of.json", "config.yaml", "metrics.jsonl")


class Out:
    """The returned files; each line and file is flushed as it is written."""

    def __init__(self, folder: Path, call: str, results: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.lines = (folder / f"{call}.jsonl").open("w", encoding="utf-8")
        self.log = (folder / f"{call}.log").open("w", encoding="utf-8")
        self.tar = folder / f"{call}.tar"
        self.tar.unlink(missing_ok=True)
        self.results = results
        self.taken: dict[Path, int] = {}  # modification time of each

    def note(self, line: dict[str, Any]) -> None:
        self.lines.write(json.dumps(line) + "\n")
        flush(self.lines)

    def say(self, text: str) -> None:
        print(text, flush=True)
        self.log.write(text + "\n")
        flush(self.log)

    def collect(self) -> list[str]:
        """Append what has been finished since the last call to the tar; returns the names."""
        found = [file for pattern in FINISHED for file in sorted(self.results.glob(pattern))]
        for run in sorted(self.results.glob("runs/*/record.json")):
            found += [run.with_name(name) for name in OF_A_RUN]
        names = []
        for file in found:
            with contextlib.suppress(
                FileNotFoundError
            ):  # not every run has all of them, or a part moved it
                names += self.take(file)
        return names

    def take(self, file: Path) -> list[str]:
        """Append a new or changed file; returns its name. Raises FileNotFoundError."""
        written, name = file.stat().st_mtime_ns, str(file.relative_to(self.results))
        if file.name.startswith(".") or self.taken.get(file) == written:
            return []
        content, about = file.read_bytes(), tarfile.TarInfo(name)
        about.size, about.mtime = len(content), written // 10**9
        with tarfile.open(self.tar, "a") as tar:
            tar.addfile(about, io.BytesIO(content))
        self.taken[file] = written
        return [name]


def flush(file: TextIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/gpu.sh", description=__doc__.splitlines()[0])
    parser.add_argument("call", choices=PARTS)
    call = parser.parse_args().call
    if not os.environ.get("OUT"):
        print("error: OUT: not set; the folder for what comes back", file=sys.stderr)
        return 1
    results = CARRIED / call  # in the checkout, so that no record has a path of this machine
    shutil.rmtree(results, ignore_errors=True)
    out = Out(Path(os.environ["OUT"]), call, results)
    rehearsal = bool(os.environ.get(REHEARSAL))
    limit = LIMITS[call] * (PATIENCE if rehearsal else 1)
    facts = {"call": call, "commit": os.environ.get(COMMIT), "rehearsal": rehearsal}
    out.note(facts | {"python": sys.version.split()[0], "limit_s": limit})
    failed = run([rehearsed(p) if rehearsal else p for p in PARTS[call]], limit, out)
    out.say(f"failed: {', '.join(failed)}" if failed else "all parts finished")
    shutil.rmtree(results, ignore_errors=True)
    return 1 if failed else 0


def rehearsed(part: Part) -> Part:
    """The same part with tiny sizes, and more time."""
    command = f"{part.command} {part.tiny}".strip()
    return replace(part, command=command, seconds=part.seconds * PATIENCE)


def run(parts: list[Part], limit: float, out: Out) -> list[str]:
    """Run all parts in turn; returns the names of those that did not finish.

    A part may also use the time that earlier parts have left, but never that of later ones.
    """
    end, failed = time.monotonic() + limit, []
    for number, part in enumerate(parts):
        later = sum(one.seconds for one in parts[number + 1 :])
        allowed = end - time.monotonic() - later
        words = command(part, out.results) if part.command else set_up(out.results)
        line = attempt(part.name, words, allowed, out)
        out.note(line)
        took = f"{line['seconds']:.1f} s of {allowed:.0f} s"
        out.say(f"{line['status']}: {part.name}, {took}; {len(line['files'])} files")
        if line["status"] != "finished":
            failed.append(part.name)
    return failed


def set_up(results: Path) -> list[str]:
    """Install the carried wheels beside the machine's own packages."""
    wheels = [str(wheel.relative_to(ROOT)) for wheel in sorted(CARRIED.glob("wheels/*.whl"))]
    if not wheels:
        return ["-c", "print('no carried/wheels (scripts/gpu_pack.py): as the machine is')"]
    pip = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    return [*pip, "--no-cache-dir", "--target", str(site(results).relative_to(ROOT)), *wheels]


def site(results: Path) -> Path:
    """The folder that they are installed in."""
    return results / "site"


def command(part: Part, results: Path) -> list[str]:
    """The words after python; if a setting occurs twice, the last one counts."""
    words = re.findall(r'(?:[^\s"]|"[^"]*")+', part.command)
    if words[0] == "-m":
        return words
    given = {word.partition("=")[0]: word for word in words[1:]}
    return [words[0], *given.values(), f"results_dir={results.relative_to(ROOT)}"]


def attempt(name: str, words: list[str], seconds: float, out: Out) -> dict[str, Any]:
    """Run a part and collect its results meanwhile; returns its line of CALL.jsonl."""
    out.say(f"--- {name}: python {' '.join(words)}")
    began, files, said = time.monotonic(), list[str](), deque[str](maxlen=LAST_LINES)
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment(out.results),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that its children can be ended too
    )
    assert process.stdout is not None
    reader = threading.Thread(target=listen, args=(process.stdout, said, out), daemon=True)
    reader.start()
    status = None
    try:
        while status is None and process.poll() is None:
            files += out.collect()
            if time.monotonic() - began > seconds:
                status = "out of time"
            time.sleep(0.1)
    finally:  # leftover processes would disturb others and outlive an interrupted call
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    reader.join(timeout=2)
    files += out.collect()
    return {
        "part": name,
        "command": " ".join(["python", *words]),
        "status": status or ("failed" if code else "finished"),
        "exit_status": None if status else code,
        "seconds": round(time.monotonic() - began, 2),
        "files": sorted(set(files)),
        "said": list(said),
    }


def environment(results: Path) -> dict[str, str]:
    """The environment of a part: the carried packages and data, no network."""
    given = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    unpack_cache()
    if (CARRIED / "cache").is_dir():
        given["XDG_CACHE_HOME"] = str(CARRIED / "cache")
    paths = (str(site(results)), str(ROOT), os.environ.get("PYTHONPATH"))
    return given | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def unpack_cache() -> None:
    """Unpack the prepared data once, completely or not at all."""
    packed, folder = CARRIED / "cache.tar.gz", CARRIED / "cache"
    if packed.is_file() and not folder.is_dir():
        unpacked = folder.with_suffix(".part")
        shutil.rmtree(unpacked, ignore_errors=True)
        shutil.unpack_archive(packed, unpacked)
        unpacked.rename(folder)


def listen(stream: TextIO, said: deque[str], out: Out) -> None:
    """Log a part's output line by line, without paths of this machine."""
    for line in stream:
        text = re.sub(r"/\S*/(?=site-packages/|lib/python3)", "", line.rstrip())
        text = text.replace(f"{ROOT}/", "")
        out.log.write(text + "\n")
        flush(out.log)
        said.append(text)


if __name__ == "__main__":
    sys.exit(main())
