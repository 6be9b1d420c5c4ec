"""The screen: 80 columns, every part of the answer; the page: the same as Markdown."""

import pytest

from bench.advising import screen, words
from bench.advising.words import Section


def test_a_screen_has_80_columns_and_a_command_goes_on_below():
    command = "python bench/train.py -m " + " ".join(f"setting_{n}=value" for n in range(12))
    rows = [["a", "b"], ["first", "words " * 40]]
    text = screen.screen([Section("title " * 20, ["sentence " * 30], rows, [command])])
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    joined = " ".join(line.strip().removesuffix("\\").strip() for line in lines)
    assert command in joined
    assert all(line.endswith(" \\") for line in lines if "setting_" in line and "_11=" not in line)


def test_a_column_is_as_wide_as_its_widest_cell():
    assert screen.table([["a", "b", "c"], ["long", "x", "y"]]) == ["  a     b  c", "  long  x  y"]


def test_the_page_keeps_what_is_in_a_cell_within_it():
    text = screen.page([Section("t", ["s"]), Section("u", [], [["a|b"], ["c"]], ["x = 1"])])
    assert "| a\\|b |\n| --- |\n| c |" in text and "```python\nx = 1\n```" in text


@pytest.mark.parametrize(
    ("one", "said"),
    [
        ({"value": 0.123, "low": 0.1, "high": 0.146}, "+12 % (10 to 15)"),
        ({"value": 0.0123, "low": -0.001, "high": 0.02}, "+1.2 % (−0.1 to 2.0)"),
        ({"value": -0.3, "low": -0.4, "high": -0.2}, "−30 % (−40 to −20)"),
    ],
)
def test_a_percentage_has_the_digits_that_its_interval_needs(one, said):
    assert words.span(one, "+") == said


FAR = {"parameters": 29.1, "each": None, "batch": 0.125, "same_task": True, "same_device": False}


def test_how_far_a_record_is_names_only_what_is_far():
    assert words.apart(FAR, "tokens") == (
        "29× parameters, 1/8 batch, tokens/parameter unknown, other device"
    )
    assert (
        words.apart(FAR | {"parameters": 1.5, "each": 2.0, "batch": 1}, "tokens") == "other device"
    )


def takes(**more) -> dict:
    found = {
        "parameters": 1000, "by_muon": 700, "tensors": 2, "matrices": [[2, 8, 8]],
        "qkv": [[3, 4, 8]], "qkv_per_head": [[6, 2, 8]], "attentions": 1,
        "left_to_adamw": {"vector": 10, "embedding": 290}, "unread": [],
    }  # fmt: skip
    return {"takes": found | more}


def test_what_could_not_be_read_is_named():
    assert "All of it could be read." in words.takes(takes()).sentences
    unread = [{"name": "mystery", "reason": "no structure found"}]
    assert "mystery" in words.takes(takes(unread=unread)).sentences[-1]
    assert "No Q, K and V were seen." in words.takes(takes(attentions=0)).sentences
    assert "Left to AdamW: embedding 290, vector 10." in words.takes(takes()).sentences
