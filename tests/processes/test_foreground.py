"""The person at the terminal interrupts early, or goes: one line, and the work goes on."""

import os
import signal
import subprocess
import sys

import pytest

from tests.helpers.commands import ROOT

BEGIN = "import sys; from bench.processes import foreground; foreground.begin()\n"


def python(code: str, **options) -> subprocess.Popen:
    pipe = subprocess.PIPE
    options = {"stdout": pipe, "stderr": pipe, "text": True, "cwd": ROOT} | options
    return subprocess.Popen([sys.executable, "-c", BEGIN + code], **options)


@pytest.mark.parametrize("entry", ["train", "step", "ortho", "report", "advise"])
def test_every_command_begins_so_before_it_imports_anything_slow(entry):
    before = (ROOT / "bench" / f"{entry}.py").read_text().split("foreground.begin()")[0]
    imported = {line.split()[1] for line in before.splitlines() if line.startswith("import ")}
    assert imported <= {"argparse", "csv", "importlib", "io", "sys"}


def test_ctrl_c_while_a_command_is_imported_is_a_line():
    process = python("print('ready', flush=True)\nwhile True: pass")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "interrupted\n")


def test_ctrl_c_is_the_commands_own_once_it_is_at_work():
    code = "foreground.at_work()\ntry:\n  print(1, flush=True)\n  while True: pass\n"
    process = python(code + "except KeyboardInterrupt: sys.exit(7)")
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 7


def test_a_signal_that_is_ignored_stays_so():
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    asks = "foreground.at_work(); print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    said = subprocess.check_output([sys.executable, "-c", ignored + BEGIN + asks], cwd=ROOT)
    assert said == b"True\n"


SPEAKS = "for i in range(9): print('x' * 9999, flush=True); print(i, file=sys.stderr)\n"


@pytest.mark.parametrize("full", ["stdout", "stderr"])
def test_a_full_disk_behind_the_output_is_outlived(full, tmp_path):
    with open("/dev/full", "w") as file:
        process = python(SPEAKS + f"open('{tmp_path}/end', 'w')", **{full: file})
        process.communicate(timeout=60)
    assert process.returncode == 0 and (tmp_path / "end").exists()


def test_a_reader_that_goes_is_outlived(tmp_path):
    read, write = os.pipe()
    process = python(f"input()\n{SPEAKS}open('{tmp_path}/end', 'w')", stdout=write, stdin=-1)
    os.close(write)
    os.close(read)
    _, said = process.communicate("go\n", timeout=60)
    assert process.returncode == 0 and (tmp_path / "end").exists()
    assert said.split() == [str(i) for i in range(9)]


def test_closed_output_is_not_the_first_file_that_is_opened(tmp_path):
    file = tmp_path / "end"
    code = f"f = open('{file}', 'w')\n{SPEAKS}import os; os.write(1, b'lost'); f.write('kept')"
    shell = f'exec {sys.executable} -c "$0" >&- 2>&-'
    done = subprocess.run(["sh", "-c", shell, BEGIN + code], cwd=ROOT, timeout=60)
    assert done.returncode == 0 and file.read_text() == "kept"
