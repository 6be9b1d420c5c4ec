"""The data that ships: complete, as documented, and small."""

import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest
from datasets import load_dataset
from hypothesis import given
from hypothesis import strategies as st

from bench.data import tokenizer
from bench.data.sources import ASSETS, PARTS
from bench.settings.errors import UserError
from tests.helpers.commands import ROOT

DIGESTS = dict(
    re.findall(r"- `(\S+)`: `([0-9a-f]{64})`, ", (ASSETS / "THIRD_PARTY.md").read_text("utf-8"))
)


def part(folder: str, name: str):
    files = {name: str(ASSETS / folder / f"{name}.parquet")}
    return list(load_dataset("parquet", data_files=files, split=name, streaming=True))


@pytest.fixture(scope="module")
def addresses():
    return {name: part("sotu", name) for name in PARTS}


@pytest.fixture(scope="module")
def pictures():
    return {name: part("fashion_mnist", name) for name in PARTS}


@pytest.fixture(scope="module", params=["gpt2", "sotu1024", "sotu4096"])
def bpe(request):
    return tokenizer.load(request.param)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_every_file_is_in_the_notice_and_all_are_small():
    files = {f.relative_to(ASSETS).as_posix() for f in ASSETS.rglob("*.*") if f.is_file()}
    assert files - {"THIRD_PARTY.md"} == set(DIGESTS)
    assert sum((ASSETS / name).stat().st_size for name in files) < 17e6


def test_addresses_are_split_by_the_documented_rule(addresses):
    assert [len(addresses[name]) for name in PARTS] == [210, 12, 11]
    by_name = {row["name"]: name for name, rows in addresses.items() for row in rows}
    assert len(by_name) == 233
    rule = {9: "validation", 19: "test"}
    for index, name in enumerate(sorted(by_name)):
        assert by_name[name] == rule.get(index % 20, "train")


def test_addresses_have_the_documented_content(addresses):
    for name, rows in addresses.items():
        content = "\n\n".join(row["text"] for row in rows)
        assert sha256(content.encode()) == DIGESTS[f"sotu/{name}.parquet"]
        assert not re.search(r"[\x00-\x08]", content)


def test_pictures_have_the_documented_content(pictures):
    assert [len(pictures[name]) for name in PARTS] == [20_000, 4_000, 10_000]
    for name, rows in pictures.items():
        images = np.stack([np.asarray(row["image"]) for row in rows])
        labels = np.array([row["label"] for row in rows], dtype=np.uint8)
        assert images.shape[1:] == (28, 28)
        assert set(labels) == set(range(10))
        digest = sha256(images.tobytes() + labels.tobytes())
        assert digest == DIGESTS[f"fashion_mnist/{name}.parquet"]


def test_no_training_picture_is_held_out(pictures):
    seen = {name: {row["image"].tobytes() for row in rows} for name, rows in pictures.items()}
    assert not seen["train"] & (seen["validation"] | seen["test"])


def test_merges_files_have_the_documented_content():
    for name in ("gpt2", "sotu1024", "sotu4096"):
        assert tokenizer.sha256(name) == DIGESTS[f"tokenizers/{name}.bpe"]


@pytest.mark.parametrize(
    ("name", "size"), [("gpt2", 50257), ("sotu1024", 1024), ("sotu4096", 4096)]
)
def test_vocabulary_size(name, size):
    bpe = tokenizer.load(name)
    assert tokenizer.vocabulary_size(name) == bpe.get_vocab_size() == size
    assert bpe.encode("a<|endoftext|>b").ids[1] == size - 1


def test_the_small_vocabulary_is_the_first_merges_of_the_large_one():
    """So that a token of the one is a token of the other, or several that lie side by side."""
    small, large = (
        tokenizer.read_merges(tokenizer.merges_file(name).read_text("utf-8"))
        for name in ("sotu1024", "sotu4096")
    )
    assert small == large[:767] and len(large) == 3839


def test_gpt2_gives_the_published_ids():
    assert tokenizer.load("gpt2").encode("Hello world").ids == [15496, 995]


@given(text=st.text())
def test_unicode_survives_the_round_trip(bpe, text):
    assert bpe.decode(bpe.encode(text).ids, skip_special_tokens=False) == text


@given(words=st.lists(st.text(alphabet="ab'.1é \n", max_size=9)), length=st.integers(1, 9))
def test_cutting_a_document_does_not_change_its_ids(bpe, words, length):
    document = " ".join(words)
    pieces = list(tokenizer.pieces(document, length))
    assert "".join(pieces) == document
    ids = [i for piece in pieces for i in bpe.encode(piece).ids]
    assert ids == bpe.encode(document).ids


def test_an_unknown_tokenizer_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"tokenizer=gpt5: .* gpt2, sotu1024, sotu4096"):
        tokenizer.load("gpt5")


def test_building_them_anew_starts_with_no_unknown_option():
    """It would download and write for minutes."""
    done = subprocess.run(
        [sys.executable, "scripts/build_assets.py", "--nope"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and "unrecognized arguments: --nope" in done.stderr
