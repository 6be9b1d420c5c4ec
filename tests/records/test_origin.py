"""Where a result comes from, as its record says."""

import importlib.metadata
import shutil
import subprocess

import pytest
import torch

from bench.records import origin
from bench.studies import words
from tests.helpers import fake_results


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The code as a copy in another checkout, as it is where only the working tree travels."""
    for typed in ("init -q", "-c user.name=a -c user.email=a commit -q --allow-empty -m a"):
        subprocess.run(["git", *typed.split()], cwd=tmp_path, check=True)
    file = tmp_path / "copy" / "bench" / "records" / "origin.py"
    file.parent.mkdir(parents=True)
    shutil.copy(origin.__file__, file)
    monkeypatch.setattr(origin, "__file__", str(file))
    monkeypatch.delenv(origin.COMMIT, raising=False)
    return file


def test_a_copy_without_git_is_of_no_known_commit_and_not_known_to_be_clean(copied, monkeypatch):
    assert origin.commit() is None and origin.dirty() is None
    monkeypatch.setenv(origin.COMMIT, "abc")
    assert origin.commit() == "abc" and origin.dirty() is None
    monkeypatch.setenv(origin.COMMIT, "")
    assert origin.commit() is None


def test_in_a_checkout_git_knows(copied, monkeypatch):
    root = copied.parents[2]
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    assert origin.dirty() is True
    monkeypatch.setenv(origin.COMMIT, "abc")
    made = ["git", "-c", "user.name=a", "-c", "user.email=a", "commit", "-q", "-m", "a"]
    subprocess.run(made, cwd=root, check=True)
    assert origin.dirty() is False and len(origin.commit()) == 40


def test_a_gpu_is_named_only_where_it_did_the_work(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Imagined GPU")
    assert origin.environment("cpu")["gpu"] is None
    assert origin.environment("cuda")["gpu"] == "Imagined GPU"


def test_a_package_that_is_not_installed_is_null(monkeypatch):
    monkeypatch.setattr(origin, "PACKAGES", ("torch", "no-such-package"))
    found = origin.environment("cpu")
    assert found["torch"] == importlib.metadata.version("torch")
    assert found["no-such-package"] is None


def test_preloaded_libraries_are_named_without_their_folders(monkeypatch):
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    assert origin.environment("cpu")["preload"] is None
    monkeypatch.setenv("LD_PRELOAD", "/a/home/faster.so:other.so")
    found = origin.environment("cpu")
    assert found["preload"] == "faster.so, other.so"
    said = words.environment([{"precision": "fp32", "environment": found}])
    assert "faster.so, other.so preloaded, torch " in said


def test_a_commit_that_may_have_changes_is_marked():
    records = [
        {"precision": "fp32", "environment": fake_results.ENVIRONMENT | {"dirty": dirty}}
        for dirty in (True, False, None)
    ]
    commit = fake_results.ENVIRONMENT["commit"][:10]
    assert words.environment(records).endswith(
        f"commit {commit}, {commit}+, {commit}? (+: with changes that were not committed) "
        "(?: not known whether with changes)"
    )
    assert "?" not in words.environment([records[1]])
