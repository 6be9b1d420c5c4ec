"""Ownership of cells: one process at a time trains a cell, on all machines with one results folder.

The first owner of a cell creates `owner.json` in its folder. A process that takes over from a dead
owner creates `owner.<token of the dead one>.json`, and so on: the last file of this chain names the
owner. A file system grants a new name to only one process (O_EXCL, on NFS too; file locks are not
needed), and tokens never repeat. So if many processes see an owner dead, exactly one takes over.
The owner alone writes its file and touches it every few seconds; at the end it removes the chain.

An owner is dead if its process has ended (on the same machine), or if its file has not been touched
for a minute. The file server's clock tells that minute; a clock of this process then confirms it.
"""

import contextlib
import json
import os
import re
import secrets
import socket
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.records import files
from bench.settings.errors import UserError

BEAT = 10.0  # seconds between two touches
STALE = 60.0  # seconds without a touch after which an owner counts as dead
FIRST = "owner.json"
WRITTEN: dict[str, Any] = {  # the types of an owner's description of itself
    **{"host": str, "pid": int, "since": str, "token": str},
    **{"machine": str | None, "started": int | None},
}


class Held(Exception):
    """Another process trains this cell; the message says which one."""


class Lost(UserError):
    """This process stood still for so long that another one took over its cell."""


@dataclass(frozen=True)
class Claim:
    """One file of a chain. `owner`: its content, empty if that is not valid: its creator had not
    written it yet, or it was damaged or copied."""

    path: Path
    owner: dict[str, Any]
    touched: int  # ns, by the clock of the file server

    def successor(self) -> Path:
        """The file of a process that takes over."""
        token = self.owner.get("token") or f"{self.path.stem}-unwritten"
        return self.path.with_name(f"owner.{token}.json")

    def __str__(self) -> str:
        if not self.owner:
            return f"another process, which has just begun ({self.path.name} is not written yet)"
        return "{host}, process {pid}, since {since}".format(**self.owner)


class Ownership:
    """`with Ownership(folder) as owner:` this process owns the cell in `folder`.

    Raises Held if another process owns it. Inside, `owner.check()` raises Lost after losing it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.me = describe(os.getpid())
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._keep_touching, daemon=True)
        self.taker: str | None = None

    def __enter__(self) -> "Ownership":
        while True:
            before = chain(self.folder)
            if before and alive(before[-1]):
                raise Held(str(before[-1]))
            path = before[-1].successor() if before else self.folder / FIRST
            if not create(path, self.me):
                time.sleep(0.05)
                continue  # another process was first
            self.chain = chain(self.folder)
            if self._holds(self.chain):
                break
            path.unlink(missing_ok=True)  # the chain before it has been removed meanwhile
        self.touched = time.time()
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.over.set()
        self.thread.join()
        with contextlib.suppress(OSError):  # a file that cannot be removed goes stale
            self.touch()
            if self.taker is None:
                for claim in self.chain:  # from the first on: the rest then leads nowhere
                    claim.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise Lost if another process has taken over the cell."""
        if abs(time.time() - self.touched) > 2 * BEAT:  # stood still: check at once
            self.touch()
        if self.taker is not None:
            raise Lost(
                f"{self.folder.name}: this process stood still for over {STALE:.0f} s and the cell "
                f"was taken over ({self.taker})"
            )

    def touch(self) -> None:
        """Show that this process is alive, or notice a takeover. Raises OSError."""
        now = chain(self.folder)
        if self._holds(now):
            os.utime(now[-1].path)
            self.touched = time.time()
        else:
            self.taker = str(now[-1]) if now else "and has ended"

    def _holds(self, claims: list[Claim]) -> bool:
        return bool(claims) and claims[-1].owner == self.me

    def _keep_touching(self) -> None:
        while not self.over.wait(BEAT) and self.taker is None:
            with contextlib.suppress(OSError):  # file server away: the next touch tells
                self.touch()


def holder(folder: Path) -> str | None:
    """The process that now trains the cell in `folder`, in words; None without signs of one."""
    claims = chain(folder)
    return str(claims[-1]) if claims and not died(claims[-1]) and fresh(claims[-1]) else None


def chain(folder: Path) -> list[Claim]:
    """All claims on a cell, the owner's last. A repeated token means that its file was copied."""
    claims: list[Claim] = []
    path = folder / FIRST
    while claim := read(path):
        if any(claim.owner and claim.owner["token"] == c.owner.get("token") for c in claims):
            claim = replace(claim, owner={})
        claims.append(claim)
        path = claim.successor()
    return claims


def read(path: Path) -> Claim | None:
    """A claim; None if there is none. Opening the file shows the server's content, not a cache."""
    try:
        with path.open("rb") as file:
            text, touched = file.read(), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    return Claim(path, said if is_owner(said) else {}, touched)


def is_owner(said: Any) -> bool:
    """Whether a value has the keys and types of `describe`."""
    if not isinstance(said, dict) or said.keys() != WRITTEN.keys():
        return False
    typed = all(isinstance(said[key], kind) for key, kind in WRITTEN.items())
    return typed and 0 < said["pid"] < 2**31 and bool(re.fullmatch("[0-9a-f]+", said["token"]))


def create(path: Path, owner: dict[str, Any]) -> bool:
    """Create the file; False if another process created it first."""
    try:
        file = path.open("x")
    except FileExistsError:
        return False
    try:
        with files.naming(path), file:
            json.dump(owner, file)
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # the disk is full
        path.unlink()
        raise
    return True


def describe(pid: int) -> dict[str, Any]:
    """An owner's description of itself."""
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "token": secrets.token_hex(8),
        "machine": machine(),
        "started": started(pid),
    }


# alive or dead ------------------------------------------------------------------------------


def alive(claim: Claim) -> bool:
    """Whether its creator is alive. If it seems dead, watch the file for two and a half beats."""
    if died(claim):
        return False
    if fresh(claim):
        return True
    end = time.monotonic() + 2.5 * BEAT
    while time.monotonic() < end:
        time.sleep(BEAT / 20)
        now = read(claim.path)
        if now is None or now.touched != claim.touched:
            return True
    return False


def fresh(claim: Claim) -> bool:
    """Whether it was touched within the last minute, by the clock that sets such times."""
    probe = claim.path.with_name(f".clock.{secrets.token_hex(4)}")
    probe.touch()
    try:
        now = probe.stat().st_mtime_ns
    finally:
        probe.unlink()
    return abs(now - claim.touched) < STALE * 1e9  # a future time: another machine's clock


def died(claim: Claim) -> bool:
    """Whether its process ran on this machine and has ended. Pids are reused, times are not."""
    owner = claim.owner
    if not owner.get("machine") or owner["machine"] != machine():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's process, maybe hidden from /proc
        return False
    return started(owner["pid"]) != owner["started"]


def machine() -> str | None:
    """This boot of this machine (of this container); None if not on Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it does not exist or has ended.

    Fields 3 (state) and 22 (starttime) of /proc/PID/stat, proc(5).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
