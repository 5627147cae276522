"""Which machine trains a run in an object storage, where there are no locks.

A machine claims a run by an object ``.holders/1``, which the storage creates for one of those who ask, and renews it
from time to time. Where it grows old, the next machine creates ``.holders/2``: the highest number has the run. Whoever
finds a higher one than its own stops. The ages are those of the storage's own clock.
"""

import contextlib
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from .files import write_text
from .hold import BEAT, FRESH, LOOK, Busy
from .remote import Remote
from .remote_run import RemoteRun
from .store import Store, StoreError

__all__ = ["Claim", "claim", "is_claimed"]

#: Seconds between two looks at what the run has saved; and for which a storage is asked again that does not answer.
SEND, LAST = 1.0, 5.0
_HOLDER = ".holders"


class Claim:
    """A run that this machine trains. A thread renews the claim, and another one takes checkpoints to the storage.

    Args:
        run: which one.
        number: of the claim.
        holder: what the object says.
        note: is called with messages for the user.

    Attributes:
        lost: whether another machine has taken the run.
    """

    def __init__(self, run: RemoteRun, number: int, holder: bytes, note: Callable[[str], None]) -> None:
        self.lost = False
        self._run, self._number, self._holder, self._note = run, number, holder, note
        self._silent = False
        self._renewing, self._sending = (_Repeated(work, self) for work in (self._renew, self._send))

    def begin(self) -> None:
        """Renew the claim from now on, and take there what is saved."""
        self._renewing.begin(BEAT)
        self._sending.begin(SEND)

    def check(self) -> None:
        """Raise where another machine has taken the run.

        Raises:
            Busy: it has.
        """
        with contextlib.suppress(StoreError):  # nobody can tell now
            self.lost = self.lost or not self._is_mine()
        if self.lost:
            raise Busy(self._run.url)

    def take(self) -> None:
        """Take the finished run there; see :meth:`.RemoteRun.take`."""
        self._sending.end()
        self._run.take()

    def end(self) -> None:
        """Take the last state there, and give the run back."""
        begun = self._sending.end()
        self._renewing.end()
        try:
            if self._is_mine():
                last = replace(self._run, patience=LAST)
                if begun:  # else what is here may be older than what is there
                    last.send_state()
                last.store.remove(_name(self._number))
        except OSError as error:
            self.complain(error)

    def _is_mine(self) -> bool:
        store = replace(self._run, patience=LAST).store
        return _highest(store) == self._number and store.read(_name(self._number)) == self._holder

    def _renew(self) -> None:
        self.lost = not self._is_mine()
        if not self.lost:
            self._run.store.write(_name(self._number), self._holder)

    def _send(self) -> None:
        replace(self._run, patience=0.0).send_state()

    def complain(self, error: OSError | None) -> None:
        """Say once that the storage does not answer; None: it has answered."""
        if isinstance(error, StoreError) and not self._silent:
            self._note(f"{error}; what is saved stays in {self._run.folder}, and is taken there as soon as it answers")
        self._silent = isinstance(error, StoreError)


class _Repeated:
    """A thread that does something for a claim again and again."""

    def __init__(self, work: Callable[[], None], claim: Claim) -> None:
        self._work, self._claim = work, claim
        self._over, self._thread = threading.Event(), threading.Thread(target=self._repeat, daemon=True)

    def begin(self, seconds: float) -> None:
        """Do it from now on, with so many seconds between."""
        self._seconds = seconds
        self._thread.start()

    def end(self) -> bool:
        """Do it no more; return whether it was begun."""
        self._over.set()
        if self._thread.ident is None:
            return False
        self._thread.join()
        return True

    def _repeat(self) -> None:
        while not self._over.wait(self._seconds) and not self._claim.lost:
            try:
                self._work()
                self._claim.complain(None)
            except OSError as error:  # the storage does not answer now, or a checkpoint is being replaced
                self._claim.complain(error)


@contextlib.contextmanager
def claim(run: RemoteRun, note: Callable[[str], None], patience: float = 0.0) -> Iterator[Claim]:
    """Hold a run in an object storage within the block; its state, or its result, is here. The folder must be held.

    Args:
        run: which one.
        note: is called with messages for the user.
        patience: seconds to wait for it.

    Raises:
        Busy: another machine is training it.
        StoreError: the storage does not answer, or refuses.
    """
    holder = json.dumps({"process": os.getpid(), "name": secrets.token_hex(8), **_here(run.remote)}).encode()
    end = time.monotonic() + patience
    while (number := _taken(run, holder)) is None:
        if time.monotonic() >= end:
            raise Busy(run.url)
        time.sleep(min(LOOK, max(0.0, end - time.monotonic())))
    mine = Claim(run, number, holder, note)
    try:
        run.bring()
        mine.begin()
        yield mine
    finally:
        mine.end()


def _taken(run: RemoteRun, holder: bytes) -> int | None:
    """Claim a run; return the number of the claim, or None where another machine has the run."""
    store = run.store
    last = _highest(store)
    if last and not _is_left(store, _name(last), _here(run.remote)):
        return None
    if not store.create(_name(last + 1), holder):
        return None
    if last:
        store.remove(_name(last))
    return last + 1


def _is_left(store: Store, name: str, here: dict[str, str]) -> bool:
    """Whether the process that has written a claim is dead: it has this folder, which we hold, or is silent."""
    try:
        known = json.loads(store.read(name) or b"{}")
    except ValueError:
        known = {}
    ours = isinstance(known, dict) and all(known.get(key) == value for key, value in here.items())
    return ours or store.age(name) >= FRESH


def is_claimed(run: RemoteRun) -> bool:
    """Whether a machine is training the run."""
    last = _highest(run.store)
    return last > 0 and run.store.age(_name(last)) < FRESH


def _highest(store: Store) -> int:
    """Return the number of the last claim; 0: there is none."""
    found: list[Any] = [name.rpartition("/")[2] for name in store.list(_HOLDER)]
    return max((int(number) for number in found if number.isdigit()), default=0)


def _name(number: int) -> str:
    return f"{_HOLDER}/{number}"


def _here(remote: Remote) -> dict[str, str]:
    """Return the names of this machine and of its working copy, which no other one has both."""
    path = remote.folder / ".copy"
    if not path.exists():
        write_text(path, secrets.token_hex(8), first=True)
    return {"node": platform.node(), "copy": path.read_text(encoding="utf-8")}
