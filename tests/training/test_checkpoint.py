"""Checkpoints: exact round trips, whatever is damaged or interrupted, and never pickle."""

import errno
import hashlib
import math
import os
import pickle
import resource
import shutil
import struct
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from bench.training import checkpoint

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
dtypes = st.sampled_from(
    [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.uint8,
        torch.bool,
    ]
)
shapes = st.lists(st.integers(0, 4), max_size=3)


@st.composite
def tensors(draw):
    """Random bytes read as a random type: every bit pattern, NaNs included."""
    dtype, shape = draw(dtypes), draw(shapes)
    count = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
    if dtype is torch.bool:
        return torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count))).reshape(
            shape
        )
    data = draw(st.binary(min_size=count, max_size=count))
    return torch.tensor(list(data), dtype=torch.uint8).view(dtype).reshape(shape)


trees = st.dictionaries(
    st.text(max_size=4) | st.integers(),
    st.recursive(
        scalars | st.binary(max_size=4) | dtypes | tensors(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.sets(st.integers() | st.text(max_size=3), max_size=3)
            | st.dictionaries(st.text(max_size=3) | st.integers(-2, 2), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.shape == b.shape
        raw_a, raw_b = (t.reshape(-1).contiguous().view(torch.uint8) for t in (a, b))
        assert torch.equal(raw_a, raw_b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, float):
        assert struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    else:
        assert a == b


def no_warning(line):
    raise AssertionError(line)


def tree(value: float) -> dict:
    return {"model": {"weight": torch.full((40, 50), value)}, "position": (3, [value, None])}


@pytest.fixture
def two(tmp_path):
    """A folder with checkpoints of steps 50 and 100."""
    checkpoint.save(tmp_path, 50, tree(0.5))
    checkpoint.save(tmp_path, 100, tree(1.0))
    return tmp_path


@settings(max_examples=60)
@given(trees)
def test_a_tree_comes_back_exactly(original):
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), 7, original)
        step, back = checkpoint.newest(Path(folder), no_warning)
    assert step == 7
    assert_same(original, back)


def test_awkward_tensors_and_keys(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    original = {
        "transposed": base.T,
        "whole": base,
        "rows": base[1:],
        "again": base,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        1: torch.tensor(1),
        "1": torch.tensor(2),
        "\ud800/ü": torch.tensor(True),
        "random": torch.get_rng_state(),
    }
    checkpoint.save(tmp_path, 0, original)
    _, back = checkpoint.newest(tmp_path, no_warning)
    original["parameter"] = original["parameter"].detach()
    assert_same(original, back)
    back["whole"].zero_()
    assert back["again"].sum() == 66


def test_the_file_is_a_safetensors_file(two):
    read = load_file(two / "step-00000100" / "tensors.safetensors")
    assert torch.equal(read["/model/weight"], torch.full((40, 50), 1.0))


@pytest.mark.parametrize("value", [object(), {1.5: 0}, {(1,): 0}, 1j, torch.zeros(2).to_sparse()])
def test_what_cannot_be_saved_is_named(tmp_path, value):
    with pytest.raises(TypeError, match=r"/outer/0: "):
        checkpoint.save(tmp_path, 1, {"outer": [value]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
        lambda p: torch.optim.Muon(p, lr=1e-3),
        lambda p: torch.optim.SGD(p, lr=torch.tensor(1e-3), momentum=0.9),
    ],
)
def test_an_optimizer_goes_on_to_the_last_bit(tmp_path, make):
    def steps(weights, optimizer, first, last):
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step)
            for weight in weights:
                weight.grad = torch.randn(weight.shape, generator=generator)
            optimizer.step()

    weights = [torch.nn.Parameter(torch.eye(4, 6)) for _ in range(2)]
    optimizer = make(weights)
    steps(weights, optimizer, 0, 3)
    checkpoint.save(tmp_path, 3, {"weights": weights, "optimizer": optimizer.state_dict()})
    steps(weights, optimizer, 3, 6)

    _, saved = checkpoint.newest(tmp_path, no_warning)
    resumed = [torch.nn.Parameter(weight) for weight in saved["weights"]]
    optimizer = make(resumed)
    optimizer.load_state_dict(saved["optimizer"])
    steps(resumed, optimizer, 3, 6)
    for one, other in zip(weights, resumed, strict=True):
        assert torch.equal(one, other)


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-4])


@pytest.mark.parametrize("name", ["tensors.safetensors", "tree.json", "SHA256SUMS"])
@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(two, name, damage):
    damage(two / "step-00000100" / name)
    warnings = []
    step, back = checkpoint.newest(two, warnings.append)
    assert step == 50
    assert_same(back, tree(0.5))
    (line,) = warnings
    assert line.startswith("checkpoint step-00000100 is damaged (")
    assert line.endswith("); using step-00000050")


def test_a_flipped_byte_is_named(two):
    flip(two / "step-00000100" / "tensors.safetensors")
    flip(two / "step-00000050" / "tree.json")
    warnings = []
    assert checkpoint.newest(two, warnings.append) is None
    assert warnings == [
        "checkpoint step-00000100 is damaged (tensors.safetensors: checksum differs); "
        "starting from the beginning",
        "checkpoint step-00000050 is damaged (tree.json: checksum differs); "
        "starting from the beginning",
    ]


def without_line(name):
    def damage(folder):
        sums = folder / "SHA256SUMS"
        lines = sums.read_text().splitlines(keepends=True)
        sums.write_text("".join(line for line in lines if name not in line))

    return damage


def without(name):
    def damage(folder):
        without_line(name)(folder)
        (folder / name).unlink()

    return damage


def of_an_earlier_form(folder):
    (folder / "tree.json").write_text('{"dict": []}')
    digest = hashlib.sha256((folder / "tree.json").read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  tree.json\n")


def of_another_cell(folder):
    other = folder.parent.parent.parent / "another" / "checkpoint"
    checkpoint.save(other, 100, tree(7.0))
    shutil.rmtree(folder)
    shutil.copytree(other / folder.name, folder)


def of_another_step(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step-00000050"), folder)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (without_line("tensors.safetensors"), "SHA256SUMS: without tensors.safetensors"),
        (without_line("tree.json"), "SHA256SUMS: without tree.json"),
        (without("tensors.safetensors"), "SHA256SUMS: without tensors.safetensors"),
        (of_an_earlier_form, "tree.json: of an earlier form"),
        (of_another_cell, "tree.json: of another, step 100"),
        (of_another_step, "step 50"),
    ],
)
def test_what_is_not_whole_or_of_something_else_is_named_and_not_used(two, damage, reason):
    damage(two / "step-00000100")
    warnings = []
    assert checkpoint.newest(two, warnings.append)[0] == 50
    (line,) = warnings
    assert reason in line and line.endswith("; using step-00000050")


def test_nothing_saved_is_none(tmp_path):
    assert checkpoint.newest(tmp_path / "missing", no_warning) is None


@pytest.mark.parametrize("error", [OSError(errno.EIO, "bad disk"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", range(7))
def test_trouble_at_any_moment_leaves_the_ones_before(two, monkeypatch, error, call):
    """Every fsync and rename of a save fails once."""
    calls = 0

    def failing(real):
        def wrapper(*args):
            nonlocal calls
            calls += 1
            if calls == call + 1:
                raise error
            return real(*args)

        return wrapper

    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr(Path, "rename", failing(Path.rename))
    if call < 6:
        with pytest.raises(type(error)):
            checkpoint.save(two, 150, tree(1.5))
    else:
        checkpoint.save(two, 150, tree(1.5))
        assert calls == 6
    monkeypatch.undo()
    step, back = checkpoint.newest(two, no_warning)
    assert_same(back, tree(step / 100))
    assert step == (150 if (two / "step-00000150").exists() else 100)
    assert not list(two.glob("unfinished-*"))


def test_a_full_disk_is_an_oserror_and_leaves_nothing(two):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            checkpoint.save(two, 150, tree(1.5))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(two / "unfinished-step-00000150" / "tensors.safetensors")
    assert sorted(path.name for path in two.iterdir()) == ["step-00000050", "step-00000100"]


def test_a_disk_that_is_full_for_the_plain_part_is_named_too(two, monkeypatch):
    def full(path, text, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError) as caught:
        checkpoint.save(two, 150, tree(1.5))
    assert caught.value.filename.endswith("tree.json")
    assert sorted(path.name for path in two.iterdir()) == ["step-00000050", "step-00000100"]


def test_leftovers_of_a_killed_process_are_cleaned(two):
    leftover = two / "unfinished-step-00000150"
    leftover.mkdir()
    (leftover / "tensors.safetensors").write_bytes(b"half")
    assert checkpoint.newest(two, no_warning)[0] == 100
    checkpoint.save(two, 150, tree(1.5))
    assert sorted(path.name for path in two.iterdir()) == ["step-00000100", "step-00000150"]


def test_going_back_forgets_the_later_ones(two):
    flip(two / "step-00000100" / "tree.json")
    checkpoint.save(two, 60, tree(0.6))
    assert sorted(path.name for path in two.iterdir()) == ["step-00000050", "step-00000060"]


def test_a_step_can_be_saved_again(two):
    flip(two / "step-00000100" / "tree.json")
    checkpoint.save(two, 100, tree(1.0))
    step, back = checkpoint.newest(two, no_warning)
    assert step == 100
    assert_same(back, tree(1.0))
    assert sorted(path.name for path in two.iterdir()) == ["step-00000050", "step-00000100"]


def test_no_pickle(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("pickle was used")

    for module, name in [(pickle, "dump"), (pickle, "dumps"), (pickle, "load"), (pickle, "loads")]:
        monkeypatch.setattr(module, name, refuse)
    for name in ("Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "save", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    checkpoint.save(tmp_path, 1, tree(2.0))
    assert_same(checkpoint.newest(tmp_path, no_warning)[1], tree(2.0))
