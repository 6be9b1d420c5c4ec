"""What is removed of a run, while other commands look at it."""

import shutil

from bench.training import claiming


def test_what_another_command_removes_at_the_same_time_is_gone_and_no_failure(
    tmp_path, monkeypatch
):
    """The owner of a run that has just ended, and a command that finds it ended."""
    folder = tmp_path / "checkpoint"
    for step in range(3):
        (folder / f"step-{step}").mkdir(parents=True)
    whole, calls = shutil.rmtree, []

    def meanwhile(path, *more, **given):
        calls.append(path)
        if len(calls) == 1:
            whole(folder / "step-0")
            raise FileNotFoundError(2, "No such file or directory", "step-0")
        whole(path, *more, **given)

    monkeypatch.setattr(shutil, "rmtree", meanwhile)
    claiming.remove(folder)
    assert not folder.exists() and len(calls) == 2
    claiming.remove(folder)
    assert len(calls) == 2
