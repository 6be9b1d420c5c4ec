"""Byte-level BPE tokenizers, rebuilt from the merges files in bench/assets/tokenizers.

Ids: the 256 bytes, then the merges in their order, then <|endoftext|>. A merges file alone thus
fixes the vocabulary; bytes are written as printable characters, in the convention of GPT-2.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from bench.settings.errors import UserError

FOLDER = Path(__file__).parents[1] / "assets" / "tokenizers"
END_OF_TEXT = "<|endoftext|>"
PIECE = 100_000  # characters encoded at once: an Encoding takes ~100 bytes a token


def merges_file(name: str | None) -> Path:
    """The merges file of a shipped tokenizer. Raises UserError for an unknown name."""
    names = sorted(path.stem for path in FOLDER.glob("*.bpe"))
    if name not in names:
        raise UserError(f"model.tokenizer={name}: must be one of {', '.join(names)}")
    return FOLDER / f"{name}.bpe"


def read_merges(text: str) -> list[tuple[str, str]]:
    """The pairs of a merges file, in order, without its `#version` line."""
    lines = text.split("\n")[1:]
    return [(left, right) for left, _, right in (line.partition(" ") for line in lines if line)]


def vocabulary_size(name: str | None) -> int:
    """Number of ids, read without the `tokenizers` library."""
    return 256 + merges_file(name).read_text("utf-8").count("\n") - 1 + 1  # -version, +endoftext


def byte_lengths(name: str | None) -> list[int]:
    """Bytes of text that each id stands for; 0 for <|endoftext|>, which is no text."""
    merges = read_merges(merges_file(name).read_text("utf-8"))
    return [1] * 256 + [len(left + right) for left, right in merges] + [0]  # a symbol is a byte


def sha256(name: str | None) -> str:
    """A hash that identifies the tokenizer, from the content of its merges file."""
    return hashlib.sha256(merges_file(name).read_bytes()).hexdigest()


def byte_symbols() -> list[str]:
    """The 256 characters that stand for bytes, in order of id.

    Printable Latin-1 characters stand for themselves and come first; the other bytes become the
    characters from 256 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = len(set(range(256)) - set(printable))
    return [chr(code) for code in (*printable, *range(256, 256 + others))]


def build(merges: list[tuple[str, str]]):
    """A `tokenizers.Tokenizer` from merges alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = [*byte_symbols(), *(left + right for left, right in merges), END_OF_TEXT]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def load(name: str | None):
    """The shipped tokenizer `name` as a `tokenizers.Tokenizer`. Raises UserError if unknown."""
    tokenizer = build(read_merges(merges_file(name).read_text("utf-8")))
    if name == "gpt2" and tokenizer.encode("Hello world").ids != [15496, 995]:
        raise AssertionError("the rebuilt GPT-2 tokenizer does not give GPT-2's ids")
    return tokenizer


def pieces(document: str, length: int = PIECE) -> Iterator[str]:
    """Cut a document before single spaces, where no token can cross: the ids stay the same."""
    single_space = re.compile(r"(?<=\S) (?=\S)")
    start = 0
    while cut := single_space.search(document, start + length):
        yield document[start : cut.start()]
        start = cut.start()
    yield document[start:]
