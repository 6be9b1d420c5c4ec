"""A user's own text: any kind of file is read as what it is, or named."""

import csv
import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from bench.data import files
from bench.data.tokenizer import END_OF_TEXT
from bench.settings.errors import UserError

PARTS = ("train", "validation", "test")
TEXTS = [f"text {i}: 'ein', \"zwei\"\nund drei" for i in range(25)]


def block(path: Path | str, column: str | None = None) -> dict:
    return {"path": str(path), "column": column}


def read(path: Path | str, column: str | None = None) -> list[str]:
    """All texts, train first."""
    split = files.split(block(path, column), PARTS)
    return "".join(text for part in PARTS for text in split[part]).split(END_OF_TEXT)[:-1]


def mistake(settings: dict) -> str:
    with pytest.raises(UserError) as caught:
        files.split(settings, PARTS)
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


def table(path: Path) -> Path:
    """A table of TEXTS, and of numbers, as the file's ending says."""
    kind = files.ending(path)
    rows = [{"id": i, "text": text} for i, text in enumerate(TEXTS)]
    if kind == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        if kind == ".json":
            json.dump(rows, file)
        elif kind == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, ["id", "text"], delimiter="," if "csv" in kind else "\t")
            writer.writeheader()
            writer.writerows(rows)
    return path


NAMES = ["a.jsonl", "A.JSONL.GZ", "a.json", "a.csv", "a.CSV.gz", "a.tsv", "a.parquet"]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_read_by_its_column(tmp_path, name):
    assert sorted(read(table(tmp_path / name), "text")) == sorted(TEXTS)


def test_rows_of_tables_count_as_files_do(tmp_path):
    split = files.split(block(table(tmp_path / "a.jsonl"), "text"), PARTS)
    assert split["validation"] == [TEXTS[9] + END_OF_TEXT]
    assert split["test"] == [TEXTS[19] + END_OF_TEXT]


def test_a_table_needs_no_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", "/proc/nowhere")
    assert len(read(table(tmp_path / "a.jsonl"), "text")) == 25


def test_empty_rows_are_passed_over(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": null}\n{"text": " "}\n{"text": "one"}\n')
    assert read(tmp_path / "a.jsonl", "text") == ["one"]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_without_a_column_is_named_before_its_content_is_read(tmp_path, name):
    path = tmp_path / name
    path.write_text("not read")
    assert f"{path} is a table; data.column=" in mistake(block(path))
    assert "but tables: data.column=" in mistake(block(tmp_path))


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    said = mistake(block(table(tmp_path / "a.csv"), "body"))
    assert "data.column=body" in said and "id, text" in said


def test_a_column_of_what_is_no_table_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    assert "data.column=text" in mistake(block(tmp_path / "a.txt", "text"))
    assert "no table in this folder" in mistake(block(tmp_path, "text"))


def test_a_broken_table_is_named(tmp_path):
    (tmp_path / "a.parquet").write_text("no parquet")
    assert "cannot read" in mistake(block(tmp_path / "a.parquet", "text"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("compressed", [False, True])
def test_text_is_read_in_the_encoding_it_says(tmp_path, encoding, compressed):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    content = (mark + "Grüße, 世界").encode(encoding)
    path = tmp_path / ("z.TXT.gz" if compressed else "z.TXT")
    path.write_bytes(gzip.compress(content) if compressed else content)
    assert read(tmp_path) == read(path) == ["Grüße, 世界"]


@pytest.mark.parametrize("content", ["no mark".encode("utf-16-le"), b"\0\1\2 binary"])
def test_zero_bytes_are_no_text(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    assert "zero bytes" in mistake(block(tmp_path))


@pytest.mark.parametrize("cut", [0, 12])
def test_a_damaged_archive_is_named(tmp_path, cut):
    content = gzip.compress(b"some words " * 100)[:-20] if cut else b"no gzip at all"
    (tmp_path / "a.txt.gz").write_bytes(content)
    assert "cannot read" in mistake(block(tmp_path))


def test_several_paths_are_no_path():
    """`data.path=[a.txt,b.txt]`: a folder or a glob has several."""
    assert "data.path=['a.txt', 'b.txt']: it takes a text file, a folder or a glob, one" in mistake(
        {"path": ["a.txt", "b.txt"]}
    )
