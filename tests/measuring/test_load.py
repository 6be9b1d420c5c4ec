"""What is said where other work would be timed along."""

import os

from bench.measuring import load


def test_nothing_is_said_on_a_quiet_machine_or_where_the_load_is_unknown(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.4, 3.0, 3.0))
    assert load.beside() == load.warning() == ""
    monkeypatch.delattr(os, "getloadavg")
    assert load.average() == 0.0


def test_a_busy_machine_is_named_with_its_load_of_the_last_minute(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (2.04, 0.0, 0.0))
    assert load.beside() == "beside other work (load 2.0)"
    assert load.warning().startswith("timed beside other work (load 2.0): ")
