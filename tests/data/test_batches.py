"""Batches are pure functions of seed and step, held-out parts are held out, mistakes are named."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data import augment, cache, files, sources, tokenizer
from bench.data import batches as data
from bench.data.batches import Images, Tokens
from bench.settings.errors import UserError
from tests.helpers.commands import ROOT

HUB = ["fineweb_edu", "openwebtext", "wikitext", "cifar10", "imagenet"]


def block(name: str, **changes) -> dict:
    return yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text()) | changes


def load(settings: dict, seed=0, sequence_length=16, tokenizer="sotu4096"):
    return data.load(settings, seed=seed, sequence_length=sequence_length, tokenizer=tokenizer)


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def shipped_home(tmp_path_factory):
    """A cache folder that already holds the shipped data: preparing it takes seconds."""
    home = tmp_path_factory.mktemp("shipped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        load(block("sotu"))
        load(block("fashion_mnist"))
    return home


@pytest.fixture
def sotu(shipped_home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(shipped_home))
    return load(block("sotu"), sequence_length=256)


@pytest.fixture
def fashion_mnist(shipped_home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(shipped_home))
    return load(block("fashion_mnist"))


@pytest.fixture
def text(tmp_path):
    """A user's file of about 2,000 words."""
    path = tmp_path / "mine.txt"
    path.write_text(" ".join(f"word{i % 97} and {i}" for i in range(2000)), "utf-8")
    return path


def small_tokens(seed: int) -> Tokens:
    parts = dict.fromkeys(sources.PARTS, np.arange(1000, dtype=np.uint16))
    return Tokens("small", seed, 16, 1000, 4, 8, parts)


def small_images(seed: int, count=10, augment="none") -> Images:
    pictures = np.broadcast_to(
        np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 4, 1)
    )
    arrays = {"statistics": np.array([[0], [1]], dtype=np.float32)}
    for part in sources.PARTS:
        arrays |= {f"{part}_images": pictures, f"{part}_labels": np.arange(count)}
    return Images("small", seed, count, 2, 4, 8, augment, arrays)


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# --- batches


@pytest.mark.parametrize("make", [small_tokens, small_images])
@given(seed=st.integers(0, 2**32), step=st.integers(0, 10**6), examples=st.integers(1, 30))
def test_a_batch_depends_on_seed_step_and_size_alone(make, seed, step, examples):
    used, fresh = make(seed), make(seed)
    used.batch(step + 3, 7)
    batch = used.batch(step, examples)
    assert equal(batch, fresh.batch(step, examples))
    assert all(len(tensor) == examples for tensor in batch.values())


@pytest.mark.parametrize("make", [small_tokens, small_images])
def test_steps_and_seeds_differ(make):
    first = make(0).batch(0, 8)
    assert not equal(first, make(0).batch(1, 8))
    assert not equal(first, make(1).batch(0, 8))


def test_windows_are_whole_and_reach_both_ends_of_the_text():
    tokens = small_tokens(0)
    ids = torch.cat([tokens.batch(step, 100)["input_ids"] for step in range(100)])
    assert (ids - ids[:, :1] == torch.arange(16)).all()
    assert ids.min() == 0
    assert ids.max() == 999


@given(seed=st.integers(0, 99), count=st.integers(1, 20), examples=st.integers(1, 25))
def test_every_epoch_shows_every_image_once(seed, count, examples):
    images = small_images(seed, count)
    labels = torch.cat([images.batch(step, examples)["labels"] for step in range(2 * count)])
    for epoch in range(len(labels) // count):
        assert sorted(labels[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))


def test_text_batches_have_the_names_and_types_transformers_expects(sotu):
    batch = sotu.batch(0, 16)
    assert batch["input_ids"].shape == (16, 256)
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
    assert torch.equal(batch["input_ids"], batch["labels"])
    assert (sotu.task, sotu.unit, sotu.units_per_example) == ("text", "tokens", 256)
    assert sotu.facts == {"vocab_size": 4096}
    bpe = tokenizer.load("sotu4096")
    assert "the" in bpe.decode(batch["input_ids"][0].tolist())


def test_image_batches_are_normalised_and_labelled(fashion_mnist):
    batch = fashion_mnist.batch(0, 2000)
    assert batch["pixel_values"].shape == (2000, 1, 28, 28)
    assert batch["pixel_values"].dtype == torch.float32
    assert abs(batch["pixel_values"].mean()) < 0.03
    assert abs(batch["pixel_values"].std() - 1) < 0.03
    assert set(batch["labels"].tolist()) == set(range(10))
    assert batch["labels"].dtype == torch.int64
    assert fashion_mnist.facts == {"image_size": 28, "channels": 1, "classes": 10, "patch_size": 4}
    assert (fashion_mnist.unit, fashion_mnist.units_per_example) == ("images", 1)


def test_pictures_are_changed_in_training_alone_and_by_seed_and_step_alone():
    plain, changed = small_images(0), small_images(0, augment="shift_flip")
    batch = changed.batch(3, 8)
    assert equal(batch, small_images(0, augment="shift_flip").batch(3, 8))
    assert torch.equal(batch["labels"], plain.batch(3, 8)["labels"])
    assert not torch.equal(batch["pixel_values"], plain.batch(3, 8)["pixel_values"])
    assert equal(next(changed.evaluation("test", 8)), next(plain.evaluation("test", 8)))


def test_a_picture_is_moved_by_up_to_two_pixels_into_black_and_half_are_mirrored():
    """All fifty outcomes, and no other, about equally often."""
    picture = np.arange(1, 49, dtype=np.uint8).reshape(6, 8, 1)
    padded = np.pad(picture, ((2, 2), (2, 2), (0, 0)))
    moved = [padded[y : y + 6, x : x + 8] for y in range(5) for x in range(5)]
    outcomes = [one.tobytes() for whole in moved for one in (whole, whole[:, ::-1])]
    found = augment.shift_flip(np.repeat(picture[None], 5000, 0), seed=1, step=2)
    assert found.shape == (5000, 6, 8, 1) and found.dtype == np.uint8
    counts = [sum(one.tobytes() == outcome for one in found) for outcome in outcomes]
    assert sum(counts) == 5000 and min(counts) > 60 and max(counts) < 150


def test_a_change_of_pictures_that_is_none_is_refused():
    assert "data.augment=spin: must be one of none, shift_flip" in mistake(
        block("fashion_mnist", augment="spin")
    )


def test_a_text_batch_takes_less_than_a_millisecond(sotu):
    """Of the processor, the least of many: a busy machine changes that little."""
    times = []
    for step in range(50):
        start = time.process_time()
        sotu.batch(step, 16)
        times.append(time.process_time() - start)
    assert min(times) < 1e-3


# --- evaluation


@pytest.mark.parametrize("name", ["sotu", "fashion_mnist"])
@pytest.mark.parametrize("part", ["validation", "test"])
def test_evaluation_reads_the_same_examples_in_any_batch_size(name, part, request):
    loaded = request.getfixturevalue(name)

    def read(batch_size: int, during: bool) -> dict:
        batches = list(loaded.evaluation(part, batch_size, during))
        return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}

    for during in (True, False):
        assert equal(read(7, during), read(500, during))
        count = loaded.evaluated(part, during)
        assert all(len(tensor) == count for tensor in read(7, during).values())
    assert loaded.evaluated(part, during=True) == block(name)["eval_sequences"]
    assert loaded.evaluated(part) == min(block(name)["final_eval_sequences"], holds(loaded, part))


def holds(loaded: Tokens | Images, part: str) -> int:
    """Windows (of 256 tokens, side by side) or images of a part."""
    if isinstance(loaded, Tokens):
        return len(loaded.parts[part]) // 256
    return len(loaded.arrays[f"{part}_labels"])


@given(count=st.integers(1, 2000), of=st.integers(1, 2000))
def test_what_is_evaluated_is_spread_evenly_over_all_there_is(count, of):
    """Also over the end, which the first few of a part, as addresses of a few years, are not."""
    places = data.evenly(count, of)
    assert len(places) == min(count, of) and places[0] >= 0 and places[-1] < of
    gaps = np.diff(places)
    assert len(places) == 1 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)
    assert abs(int(places[0]) - (of - 1 - int(places[-1]))) <= 1


def test_evaluation_windows_are_whole_and_none_overlaps_another(sotu):
    text = torch.from_numpy(sotu.parts["validation"].astype(np.int64))
    windows = torch.cat([b["input_ids"] for b in sotu.evaluation("validation", 5, during=True)])
    starts = data.evenly(len(windows), len(text) // 256) * 256
    assert starts[-1] > 0.9 * len(text) and np.diff(starts).min() >= 256
    for start, window in zip(starts, windows, strict=True):
        assert torch.equal(window, text[start : start + 256])


@pytest.mark.parametrize("make", [small_tokens, small_images])
def test_the_end_of_a_run_is_evaluated_on_more_where_there_is_more(make):
    loaded = make(0)
    assert loaded.evaluated("test", during=True) == 4 and loaded.evaluated("test") == 8


def test_a_block_without_a_number_for_the_end_reads_as_many_as_before_it(text):
    settings = block("text_files", path=str(text), eval_sequences=3)
    del settings["final_eval_sequences"]  # a user's own file
    for one in (settings, settings | {"final_eval_sequences": None}):
        assert load(one).evaluated("test") == load(one).evaluated("test", during=True) == 3


@pytest.mark.more
def test_held_out_text_does_not_occur_in_training_text(sotu):
    bpe = tokenizer.load("sotu4096")
    train = bpe.decode(sotu.parts["train"].tolist(), skip_special_tokens=False)
    for part in ("validation", "test"):
        for batch in sotu.evaluation(part, 32):
            for ids in batch["input_ids"]:
                assert bpe.decode(ids[64:192].tolist()) not in train


def test_evaluation_takes_what_a_part_holds(text):
    loaded = load(block("text_files", path=str(text), final_eval_sequences=10**6))
    assert 1 < loaded.evaluated("test") == len(loaded.parts["test"]) // 16


# --- cache


def test_a_warm_load_equals_a_cold_one_and_prepares_nothing(text, monkeypatch, capfd):
    cold = load(block("text_files", path=str(text)))
    assert "tokenizing" in capfd.readouterr().err
    monkeypatch.setattr(data, "tokenize", None)
    warm = load(block("text_files", path=str(text)))
    assert capfd.readouterr().err == ""
    for part in sources.PARTS:
        assert np.array_equal(cold.parts[part], warm.parts[part])


def damage_by_truncation(file: Path):
    file.write_bytes(file.read_bytes()[:-2])


def damage_by_a_flipped_byte(file: Path):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("suffix", ["train", "validation", "json"])
@pytest.mark.parametrize("damage", [damage_by_truncation, damage_by_a_flipped_byte, Path.unlink])
def test_a_damaged_cache_is_built_again(text, suffix, damage, cache_home, capfd):
    whole = {k: v.copy() for k, v in load(block("text_files", path=str(text))).parts.items()}
    capfd.readouterr()
    (file,) = cache_home.glob(f"muonbench/*.{suffix}")
    damage(file)
    again = load(block("text_files", path=str(text)))
    assert "tokenizing" in capfd.readouterr().err
    for part in sources.PARTS:
        assert np.array_equal(whole[part], again.parts[part])


def test_a_damaged_cache_is_reported_in_one_line(text, cache_home, capfd):
    load(block("text_files", path=str(text)))
    (file,) = cache_home.glob("muonbench/*.train")
    damage_by_truncation(file)
    capfd.readouterr()
    load(block("text_files", path=str(text)))
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1


def test_without_a_writable_cache_a_run_goes_on_with_one_warning(text, cache_home, capfd):
    usual = load(block("text_files", path=str(text)))
    cache_home.rename(cache_home.with_name("elsewhere"))
    cache_home.write_text("a file where the folder should be")
    capfd.readouterr()
    loaded = load(block("text_files", path=str(text)))
    warnings = [
        line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")
    ]
    assert len(warnings) == 1
    assert np.array_equal(usual.parts["train"], loaded.parts["train"])


def test_the_shipped_data_need_no_folder_at_all(shipped_home, monkeypatch, capfd):
    """As a user without a home, on a file system where nothing can be written; and no `datasets`,
    which would want a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shipped_home))
    usual = load(block("fashion_mnist"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(cache.Path, "home", no_home)
    monkeypatch.setitem(sys.modules, "datasets", None)
    loaded = load(block("fashion_mnist"))
    said = capfd.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("warning: ")] == [
        "warning: prepared data stays in memory, not kept (no home here)"
    ]
    assert equal(usual.batch(3, 5), loaded.batch(3, 5))
    for part in sources.PARTS:
        one, other = (next(d.evaluation(part, 50)) for d in (usual, loaded))
        assert equal(one, other)
    addresses = {part: list(texts) for part, texts, _ in sources.documents(block("sotu"))}
    assert [len(addresses[part]) for part in sources.PARTS] == [210, 12, 11]


def no_home(*_, **__):
    raise RuntimeError("no home here")


def test_a_manifest_that_lacks_an_array_is_damaged(text, cache_home, capfd):
    whole = load(block("text_files", path=str(text)))
    (manifest,) = cache_home.glob("muonbench/*.json")
    entries = json.loads(manifest.read_text())
    del entries["validation"]
    manifest.write_text(json.dumps(entries))
    capfd.readouterr()
    again = load(block("text_files", path=str(text)))
    assert "is damaged; building it again" in capfd.readouterr().err
    assert np.array_equal(whole.parts["validation"], again.parts["validation"])


def test_a_full_disk_leaves_no_rubbish_and_no_damaged_entry(text, cache_home, monkeypatch, capfd):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "replace", full)
        load(block("text_files", path=str(text)))
    assert "No space left" in capfd.readouterr().err
    assert [file.suffix for file in cache_home.glob("muonbench/*")] in ([".lock"], [])


def test_what_a_killed_process_left_behind_is_removed(text, cache_home):
    load(block("text_files", path=str(text)))
    (manifest,) = cache_home.glob("muonbench/*.json")
    left_behind = manifest.with_suffix(".abc123")
    left_behind.mkdir()
    (left_behind / "train").write_bytes(b"half")
    manifest.unlink()
    load(block("text_files", path=str(text)))
    assert manifest.exists()
    assert not left_behind.exists()


def test_the_cache_tells_tokenizers_and_texts_apart(text):
    small = load(block("text_files", path=str(text)))
    assert load(block("text_files", path=str(text)), tokenizer="gpt2").facts["vocab_size"] == 50257
    text.write_text(text.read_text() + " and more" * 100)
    longer = load(block("text_files", path=str(text)))
    assert sum(map(len, longer.parts.values())) > sum(map(len, small.parts.values()))


def test_a_warm_load_is_quick_and_imports_nothing_heavy(shipped_home):
    code = """
import sys, time, yaml
from bench.data import batches as data
block = yaml.safe_load(open("conf/data/sotu.yaml"))
data.identity(block)
assert "torch" not in sys.modules
start = time.process_time()
data.load(block, seed=0, sequence_length=256, tokenizer="sotu4096")
print(time.process_time() - start)
assert not {"datasets", "transformers", "tokenizers", "pyarrow"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"XDG_CACHE_HOME": str(shipped_home)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.1  # of the processor; 0.01 s here


# --- the user's own text


def write_files(folder: Path, count: int) -> None:
    for index in range(count):
        path = folder / f"{'deep/' if index % 2 else ''}{index:03}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"number{index} " * 40, "utf-8")


def decoded(tokens: Tokens, part: str) -> str:
    return tokenizer.load("sotu4096").decode(tokens.parts[part].tolist(), skip_special_tokens=False)


def test_the_ends_of_a_single_file_are_held_out(text):
    loaded = load(block("text_files", path=str(text)))
    joined = "".join(decoded(loaded, part) for part in sources.PARTS)
    assert joined == text.read_text() + "<|endoftext|>"
    for part in ("validation", "test"):
        assert len(decoded(loaded, part)) == pytest.approx(0.05 * len(joined), abs=2)


def test_of_many_files_whole_ones_are_held_out(tmp_path):
    write_files(tmp_path / "many", 40)
    loaded = load(block("text_files", path=str(tmp_path / "many")))
    paths = files.text_files({"path": str(tmp_path / "many")})
    for part, indices in {"validation": (9, 29), "test": (19, 39)}.items():
        expected = [paths[index].read_text().strip() for index in indices]
        assert decoded(loaded, part).split("<|endoftext|>")[:-1] == expected
    assert decoded(loaded, "train").count("<|endoftext|>") == 36


def test_a_glob_is_a_path_too(tmp_path):
    write_files(tmp_path, 6)
    names = [file.name for file in files.text_files({"path": str(tmp_path / "00[024].txt")})]
    assert names == ["000.txt", "002.txt", "004.txt"]


def test_identity_follows_the_content_not_the_place(text, tmp_path):
    copy = tmp_path / "copy.txt"
    copy.write_bytes(text.read_bytes())
    one, other = (data.identity(block("text_files", path=str(p))) for p in (text, copy))
    assert one == other
    assert str(tmp_path) not in str(one)
    copy.write_text("something else")
    assert data.identity(block("text_files", path=str(copy))) != one
    assert data.identity(block("sotu")) == block("sotu")


def test_text_that_is_no_table_is_known_as_before_there_was_a_column(text):
    settings = block("text_files", path=str(text))
    before = {key: value for key, value in settings.items() if key != "column"}
    assert sources.fingerprint(settings) == sources.fingerprint(before)


# --- mistakes


def mistake(settings: dict, **arguments) -> str:
    with pytest.raises(UserError) as caught:
        load(settings, **arguments)
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


@pytest.mark.parametrize("path", ["missing.txt", "nothing/*.txt", "???", None])
def test_a_missing_path_is_named(path):
    settings = block("text_files", path=path)
    assert "data.path" in mistake(settings)
    with pytest.raises(UserError, match=r"data\.path"):
        data.identity(settings)


def test_a_folder_without_text_is_named(tmp_path):
    assert "no .txt file" in mistake(block("text_files", path=str(tmp_path)))


def test_an_empty_text_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    assert "no text" in mistake(block("text_files", path=str(tmp_path / "empty.txt")))


def test_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes("d'accord, à bientôt".encode("latin-1"))
    message = mistake(block("text_files", path=str(tmp_path)))
    assert "latin.txt is not UTF-8 (byte 0xe0 at offset 10)" in message


def test_a_part_shorter_than_a_sequence_is_refused_with_both_numbers(text):
    message = mistake(block("text_files", path=str(text)), sequence_length=1024)
    tokens = len(load(block("text_files", path=str(text))).parts["validation"])
    assert f"validation part has {tokens} tokens, one sequence needs 1024" in message


@pytest.mark.parametrize("value", [0, -1, "many", None])
def test_a_wrong_number_of_evaluation_sequences_is_refused(value):
    assert f"data.eval_sequences={value}" in mistake(block("sotu", eval_sequences=value))
    if value is not None:
        said = mistake(block("sotu", final_eval_sequences=value))
        assert f"data.final_eval_sequences={value}" in said


def test_an_unknown_tokenizer_is_refused():
    assert "gpt2, sotu1024, sotu4096" in mistake(block("sotu"), tokenizer="wordpiece")


def test_a_patch_size_that_does_not_divide_the_image_is_refused():
    message = mistake(block("fashion_mnist", patch_size=5))
    assert "data.patch_size=5" in message
    assert "28" in message


def test_a_task_that_the_data_are_not_of_is_named_with_what_is_lacking():
    said = mistake(block("sotu", task="images"))
    assert "data.task=images: data=sotu has no image_column" in said
    assert "data=fashion_mnist" in said
    assert "data.task=text: data=fashion_mnist" in mistake(block("fashion_mnist", task="text"))


def test_a_wrong_column_is_refused_with_the_columns_there_are():
    assert "name, text" in mistake(block("sotu", column="body"))


# --- hub


@pytest.fixture
def online(monkeypatch):
    """The hub answers; what it delivers, each test decides."""
    session = SimpleNamespace(head=lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: session)


@pytest.mark.parametrize("name", HUB)
def test_a_hub_that_fails_is_one_sentence_naming_the_shipped_option(name, online, monkeypatch):
    def fails(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("datasets.load_dataset", fails)
    message = mistake(block(name))
    assert len(message.splitlines()) == 1
    shipped = "data=sotu" if block(name)["task"] == "text" else "data=fashion_mnist"
    assert f"data={name}" in message
    assert shipped in message
    assert "no route to host" in message


@pytest.mark.parametrize("name", HUB)
def test_offline_mode_is_told_at_once(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("waited to try again"))
    assert "offline" in mistake(block(name))


def test_gated_data_says_what_to_do(online, monkeypatch):
    def gated(*_, **__):
        raise FileNotFoundError("Dataset 'ILSVRC/imagenet-1k' is a gated dataset on the Hub.")

    monkeypatch.setattr("datasets.load_dataset", gated)
    assert "hf auth login" in mistake(block("imagenet"))


def test_hub_text_holds_out_the_first_documents_and_stops(online, monkeypatch):
    documents = [{"text": f"document{index} " * 20} for index in range(10_000)]
    read = []

    def stream(*_, split, **__):
        assert split == "train"
        return (read.append(row) or row for row in documents)

    monkeypatch.setattr("datasets.load_dataset", stream)
    settings = block("fineweb_edu")
    sizes = {"validation": 5_000, "test": 5_000, "train": 20_000}
    settings["parts"] = {part: {"split": "train", "tokens": sizes[part]} for part in sizes}
    loaded = load(settings)
    assert len(read) < 1000
    text = [decoded(loaded, part) for part in ("validation", "test", "train")]
    assert "".join(text) == "".join(row["text"] + "<|endoftext|>" for row in read)
    assert all(len(loaded.parts[part]) >= sizes[part] for part in sizes)


def test_hub_lines_are_joined_as_they_are(online, monkeypatch):
    lines = [{"text": f" line {index} \n"} for index in range(500)]
    monkeypatch.setattr("datasets.load_dataset", lambda *_, split, **__: iter(lines))
    loaded = load(block("wikitext"))
    assert decoded(loaded, "test") == "".join(line["text"] for line in lines)


def test_hub_images_are_cut_resized_and_split(online, monkeypatch):
    pictures = [
        {"img": Image.new("RGB", (40, 36), (index, 0, 200)), "label": index % 10}
        for index in range(30)
    ]
    monkeypatch.setattr("datasets.load_dataset", lambda *_, split, **__: iter(pictures))
    settings = block("cifar10")
    settings["parts"] = {
        "train": {"split": "train", "images": 20},
        "validation": {"split": "train", "images": 5},
        "test": {"split": "test", "images": None},
    }
    loaded = load(settings)
    assert loaded.arrays["train_images"].shape == (20, 32, 32, 3)
    assert loaded.arrays["validation_images"][:, 0, 0, 0].tolist() == [20, 21, 22, 23, 24]
    assert loaded.evaluated("test") == 30
    assert torch.isfinite(loaded.batch(0, 8)["pixel_values"]).all()


def test_years_choose_the_addresses_of_a_period_in_every_part(sotu):
    early, late = (load(block("sotu", years=years)) for years in ([1790, 1860], [1861, 2021]))
    for part in sources.PARTS:
        whole = sotu.parts[part]
        assert 0 < len(early.parts[part]) < len(whole)
        both = np.concatenate([early.parts[part], late.parts[part]])
        assert np.array_equal(both, whole)  # they are in the order of their years
    assert sources.fingerprint(block("sotu")).keys().isdisjoint({"years"})  # cached as before


def test_years_without_a_text_in_every_part_are_named():
    with pytest.raises(UserError, match=r"data\.years=\[1790, 1795\]: the validation part has 0"):
        load(block("sotu", years=[1790, 1795]))
    with pytest.raises(UserError, match=r"data\.years=\[1790\]: it takes null or \[first, last\]"):
        load(block("sotu", years=[1790]))


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf/data").glob("*.yaml")))
def test_a_configuration_is_named_like_its_file(name):
    assert block(name)["name"] == name
