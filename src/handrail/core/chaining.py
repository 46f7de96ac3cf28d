"""Where the next records of a journal go: the same for every place that a journal is kept in.

Rules:
- A draft is drawn whole before anything of it is written: what refuses it leaves nothing behind.
- A fence (`Entry.after`) is compared with what a chain ended in before the present draft: all the
  entries of one write stand behind the same fence.
- Writes of several threads become one transaction, made by whichever thread comes first.
- A body that holds one of `secrets` is refused: the callers see to it, this is the second pair of
  eyes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from handrail.errors import FencedError, HandrailError, JournalError
from handrail.plans.canonical import encode_plain, time_text
from handrail.plans.chain import (
    ANCHORS,
    CLOSED,
    GENESIS,
    OPENED,
    REOPENED,
    RESERVED,
    USED,
    ended_body,
    is_name,
    leaks,
    opened_body,
    record_hash,
    used_body,
)
from handrail.ports import Clock, Entry, Record

T = TypeVar("T")
NEW = "new"
# Some megabytes; what is forgotten is looked up again.
_REMEMBERED_CHAINS = 20_000


class Tail(NamedTuple):
    """What a chain ends in."""

    sequence: int
    hash: str


class Source(Protocol):
    """What a draft asks of the journal, at a moment at which nobody else writes to it."""

    def tail(self, chain: str) -> Tail | None:
        """Return what `chain` ends in; None where there is no such chain."""

    def is_open(self, chain: str) -> bool:
        """Whether the last anchor of `chain`, which exists, is not the one that closes it."""

    def is_used(self, body: str) -> bool:
        """Whether the chain `used` has a record of this body."""


class UnrememberedError(LookupError):
    """What a draft asks for is not remembered: the journal itself must be asked."""


class Remembered:
    """A `Source` that asks nobody: tails of open chains, as this process left them.

    Others may have written since. So what is drawn from it is a guess, which the database refuses
    (primary key, triggers) where it is wrong; nothing that it says is evidence of anything.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._tails: dict[str, Tail] = {}

    def tail(self, chain: str) -> Tail | None:
        """Return what this process wrote last to `chain`."""
        found = self._tails.get(chain)
        if found is None:
            raise UnrememberedError(chain)
        return found

    def is_open(self, chain: str) -> bool:
        """Whether it is remembered: closed ones are not."""
        return chain in self._tails

    def is_used(self, body: str) -> bool:
        """Not known here, ever."""
        raise UnrememberedError(body)

    def note(self, draft: Draft) -> None:
        """Remember what was written, or is about to be."""
        if len(self._tails) > _REMEMBERED_CHAINS:
            self._tails.clear()
        for chain, tail in draft.tails.items():
            if chain in draft.closed:
                self._tails.pop(chain, None)
            elif chain != ANCHORS:
                self._tails[chain] = tail

    def forget(self) -> None:
        """Remember nothing any more."""
        self._tails.clear()


class Draft:
    """The records of one write, each where it belongs.

    Attributes:
        records: all of them with their anchors, in the order of writing.
        tails: what the chains of these records end in, once they are written.
        closed: chains that they close.
    """

    def __init__(self, source: Source, clock: Clock, secrets: Collection[str]) -> None:
        """Begin empty; no body may hold one of `secrets`."""
        self.records: list[Record] = []
        self._source = source
        self._clock = clock
        self._secrets = secrets
        self._before: dict[str, Tail | None] = {}
        self.tails: dict[str, Tail] = {}
        self.closed: set[str] = set()
        self._open: set[str] = set()

    def append(self, chain: str, kind: str, body: str, after: str = "") -> Record:
        """Draw one record behind the last of its chain, with the anchor that it needs.

        Raises:
            FencedError: the chain did not end in `after`.
            JournalError: the body holds a secret.
        """
        self._refuse_unfit(chain, kind, body)
        self._check_fence(chain, after)
        tail = self._tail(chain)
        if tail is None:
            tail = Tail(0, self._anchor(OPENED, opened_body(chain)).hash)
        elif not self._is_open(chain):
            self._anchor(REOPENED, ended_body(chain, *tail))
        self._open.add(chain)
        self.closed.discard(chain)
        return self._add(chain, kind, body, tail)

    def close(self, chain: str) -> None:
        """Draw the anchor that closes `chain`, where it is there and open."""
        tail = self._tail(chain)
        if tail is not None and self._is_open(chain):
            self._anchor(CLOSED, ended_body(chain, *tail))
            self._open.discard(chain)
            self.closed.add(chain)
            self.tails.setdefault(chain, tail)

    def use(self, key: str) -> bool:
        """Draw the record that `key` is used; return False, drawing none, where it was."""
        body = used_body(key)
        if self._source.is_used(body):
            return False
        self.append(USED, "used", body)
        return True

    def clear(self) -> None:
        """Have nothing drawn."""
        self.records.clear()
        self.tails.clear()
        self.closed.clear()

    def _tail(self, chain: str) -> Tail | None:
        if chain not in self._before:
            self._before[chain] = self._source.tail(chain)
        return self.tails.get(chain, self._before[chain])

    def _is_open(self, chain: str) -> bool:
        if chain in self._open or chain in self.closed:
            return chain in self._open
        return self._source.is_open(chain)

    def _check_fence(self, chain: str, after: str) -> None:
        if not after:
            return
        self._tail(chain)
        before = self._before[chain]
        stands = before is None if after == NEW else before is not None and before.hash == after
        if not stands:
            raise FencedError(
                "journal.fenced",
                f"the chain `{chain}` has gone on without this process; nothing was written",
                hint="another engine has it now: `handrail runs` shows where it stands",
            )

    def _anchor(self, kind: str, body: str) -> Record:
        return self._add(ANCHORS, kind, body, self._tail(ANCHORS) or Tail(0, GENESIS))

    def _add(self, chain: str, kind: str, body: str, tail: Tail) -> Record:
        sequence, time = tail.sequence + 1, time_text(self._clock.now())
        digest = record_hash(
            chain=chain, sequence=sequence, time=time, kind=kind, body=body, previous=tail.hash
        )
        self.tails[chain] = Tail(sequence, digest)
        record = Record(chain, sequence, time, kind, body, tail.hash, digest)
        self.records.append(record)
        return record

    def _refuse_unfit(self, chain: str, kind: str, body: str) -> None:
        if not (is_name(chain) and is_name(kind)):
            raise AssertionError(f"{chain!r} or {kind!r} cannot be a chain's or a record's name")
        if self._secrets and leaks(body, self._secrets):
            raise JournalError(
                "internal",
                f"a record `{kind}` of `{chain}` would have held a secret; it was not written",
                hint="report this as a defect; what was about to happen did not begin",
            )


def appending(chain: str, kind: str, body: Mapping[str, Any]) -> Callable[[Draft], Record]:
    """Return what draws one record; a body that has no text is refused here and now."""
    _refuse_reserved(chain)
    text = encode_plain(body)
    return lambda draft: draft.append(chain, kind, text)


def writing(entries: Sequence[Entry]) -> Callable[[Draft], tuple[Record, ...]]:
    """Return what draws `entries`, in order."""
    for entry in entries:
        _refuse_reserved(entry.chain)
    texts = [encode_plain(entry.body) for entry in entries]

    def draw(draft: Draft) -> tuple[Record, ...]:
        return tuple(
            draft.append(entry.chain, entry.kind, text, entry.after)
            for entry, text in zip(entries, texts, strict=True)
        )

    return draw


def _refuse_reserved(chain: str) -> None:
    if chain in RESERVED:
        raise AssertionError(f"the chain {chain!r} is written by the journal itself")


def refuse_filled() -> JournalError:
    """Return why another journal's records are not taken over."""
    return JournalError(
        "journal.unwritable",
        "this journal has records; another one's are written only into an empty one",
        hint="export this one too, and keep both: a chain is never mixed with another",
    )


class Request(Generic[T]):
    """One thread's write, from the asking to its answer.

    Attributes:
        is_over: whether it has been answered.
    """

    def __init__(self, draw: Callable[[Draft], T]) -> None:
        """Ask for what `draw` draws."""
        self._draw = draw
        self.is_over = False
        self._answers: list[T] = []
        self._error: BaseException | None = None

    def draw_on(self, draft: Draft) -> None:
        """Draw. What refuses it is kept for its own thread alone, and nothing of it is drawn."""
        self._error = None
        try:
            self._answers[:] = [self._draw(draft)]
        except (HandrailError, AssertionError) as error:
            # Not what befalls the source: that befalls all who are written together.
            self._error = error
            draft.clear()

    def guess_on(self, draft: Draft) -> None:
        """Draw from what is remembered; any doubt is raised, for it must be drawn again then."""
        self._error = None
        self._answers[:] = [self._draw(draft)]

    def end(self, error: BaseException | None = None) -> None:
        """Answer it: it is written, or `error` befell all that was to be written with it."""
        self._error = self._error or error
        self.is_over = True

    def answer(self) -> T:
        """Return what was drawn, or raise what refused it."""
        if self._error is not None:
            raise self._error
        return self._answers[0]


class Together:
    """Writes of several threads, as few transactions as they let it be."""

    def __init__(self, commit: Callable[[Sequence[Request[Any]]], None]) -> None:
        """Keep `commit`: it writes all that it is given in one durable transaction.

        It raises what befell all of them; none is written then.
        """
        self.lock = threading.RLock()
        self._commit = commit
        self._asked: deque[Request[Any]] = deque()

    def make(self, draw: Callable[[Draft], T]) -> T:
        """Write what `draw` draws, and what other threads asked for meanwhile."""
        request = Request(draw)
        self._asked.append(request)
        with self.lock:
            if not request.is_over:
                self._write(request)
        return request.answer()

    def _write(self, own: Request[Any]) -> None:
        requests = []
        while self._asked:
            requests.append(self._asked.popleft())
        try:
            self._commit(requests)
        except Exception as error:  # noqa: BLE001  each thread raises it
            for request in requests:
                request.end(error)
        except BaseException:
            # Ctrl-C, which is for this thread alone.
            self._leave([request for request in requests if request is not own])
            raise
        for request in requests:
            request.end()

    def _leave(self, requests: Sequence[Request[Any]]) -> None:
        for request in requests:
            request.end(
                JournalError(
                    "journal.unknown",
                    "nobody knows whether a record was kept: another thread was interrupted",
                    hint="what the journal holds is read again before anything else",
                )
            )


def guessed(
    requests: Sequence[Request[Any]], remembered: Remembered, new_draft: Callable[[], Draft]
) -> list[Record] | None:
    """Return the records of `requests`, drawn without asking the journal.

    Returns:
        None where anything is in doubt: a chain that is not remembered, a fence that does not
        stand, a body that is refused. Then they are to be drawn from the journal itself.
    """
    records: list[Record] = []
    try:
        for request in requests:
            draft = new_draft()
            request.guess_on(draft)
            remembered.note(draft)
            records += draft.records
    except Exception:  # noqa: BLE001  drawn again from the journal, it is raised for good
        remembered.forget()
        return None
    return records
