"""One client as it speaks: greeting, the connection's own commands, and who sees to the rest.

Rules:
- A client that has not shown the run's secret reaches nothing.
- Reads pass as they come; in `observe` everything does; what writes goes to `holding`.
- Nothing may make the server leave out a reply, or send what is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from handrail.wire.ledger import Refusal
from handrail.wire.redis import hiding
from handrail.wire.redis.catalog import SUBSCRIBING, Entry
from handrail.wire.redis.holding import Holding, Queued, wrong_number
from handrail.wire.redis.holding import Transaction as Kept
from handrail.wire.redis.line import MOST_COUNTING, Gate, Line
from handrail.wire.redis.pairing import Changed, Local, Subscribing, Waiting
from handrail.wire.redis.plan import MalformedError, whole
from handrail.wire.redis.replies import ErrorReply, FramingError
from handrail.wire.redis.requests import Request, Requests, encode, parse
from handrail.wire.redis.usual import NO_SHAPE

OK = b"+OK\r\n"
NOAUTH = "NOAUTH Authentication required."
NOAUTH_HELLO = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto>"
    " AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol"
    " version at the same time"
)
WRONGPASS = "WRONGPASS invalid username-password pair or user is disabled."
NOT_IN_MULTI = "ERR Command not allowed inside a transaction"
MOST_WRONG = 10
_STAR = 0x2A
_MOST_BEFORE_BYTES = 4096


class Session(Line):
    """The client's side; see the module."""

    def __init__(self, gate: Gate, requests: Requests) -> None:
        super().__init__(gate, requests)
        self._judge = gate.judge
        self._holding = Holding(self, gate.judge)
        self._known = False
        self._wrong = 0
        self._observes = gate.judge.mode == "observe"
        self._database, self._usual = 0, gate.judge.usual(0)
        self._shape = NO_SHAPE
        self._before, self._before_count = b"", 0  # what passed last, and how many commands it was
        self._in_multi = False  # in `observe`, where transactions are the server's alone

    # --- one request after the other -----------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        requests = self.requests
        if requests.at >= len(requests.data) and requests.is_between and self._pass_on(data):
            return
        requests.feed(data)
        self._go_on()

    def _pass_on(self, data: bytes) -> bool:
        """Pass on what is made up of commands that came before; return False where it is not.

        The same as `take_run`, without its steps: nearly all that a client sends is this.
        """
        if not self._known or self._busy is not None or self.is_ending or self.server is None:
            return False
        holding, pairing = self._holding, self.pairing
        if holding.transaction is not None or pairing.counting > MOST_COUNTING:
            return False
        if holding.database != self._database:
            self._change_usual(holding.database)
        if data != self._before:
            count = 1 if data in self._usual.alone else self._count(data)
            if not count:
                return False
            kept = data if len(data) <= _MOST_BEFORE_BYTES else b""
            self._before, self._before_count = kept, count
        self.server.write(data)
        pairing.plain(self._before_count)
        return True

    def _count(self, data: bytes) -> int:
        """Return how many commands `data` is, all of one name; 0 where they are taken apart."""
        if not data.startswith(self._shape.lead):
            self._shape = self._usual.shape_of(data)
        return self._shape.count(data)

    def _change_usual(self, database: int) -> None:
        self._database, self._usual = database, self._judge.usual(database)
        self._shape, self._before, self._before_count = NO_SHAPE, b"", 0

    def take_run(self) -> None:  # noqa: C901  what is new passes through it: calls would cost
        """Pass on, as they came, all requests in a row that need no more than a glance."""
        requests, holding = self.requests, self._holding
        if not self._known or holding.transaction is not None or not requests.is_between:
            return
        if self._database != holding.database:
            self._change_usual(holding.database)
        data, start, shape = requests.data, requests.at, self._shape
        at, end, count, size = start, start, 0, len(data)
        refusal: Refusal | None = None
        while at < size:
            if shape.span and data.startswith(shape.lead, at):
                end = at + shape.span
                if data[at + len(shape.lead) : end] in shape.rests and end <= size:
                    at, count = end, count + 1
                    continue
            words: list[bytes] = []
            end = self._glance(data, at, words)
            if end < 0 or not words:
                break
            entry = self._judge.catalog.find(words)
            if not (entry.passes_observed if self._observes else entry.is_plain):
                break
            if self._judge.in_question(entry, words, holding.database):
                break
            refusal = self._judge.follow(entry, words, holding.database)
            if refusal is not None:
                break
            shape = self._usual.learn(
                words, data[at:end], is_alone=end - at == size, has_key=entry.reads_one
            )
            at, count = end, count + 1
        self._shape = shape
        if count:
            requests.at = at
            self.send(data[start:at] if start or at < size else data)
            self.pairing.plain(count)
        if refusal is not None:
            requests.at = end
            self.say_no(refusal)

    @staticmethod
    def _glance(data: bytes, at: int, words: list[bytes]) -> int:
        """Parse a request; what is none is left to whoever takes one alone, later."""
        try:
            return parse(data, at, words) if data[at] == _STAR else -1
        except FramingError:
            return -1

    def take(self, request: Request) -> None:
        """Take one request."""
        words = request.arguments
        entry = self._judge.catalog.find(words)
        if not self._known and entry.name not in {"AUTH", "HELLO", "QUIT", "RESET"}:
            request.close()
            self.say(NOAUTH)
            return
        if template := self._judge.in_question(entry, words, self._holding.next_database):
            self.work(self._wait_for_word(request, template))
        elif entry.kind == "special" and entry.name in _SPECIAL:
            _SPECIAL[entry.name](self, request, entry)
        elif self._judge.mode == "observe":
            self._observe(request, entry)
        elif self._holding.transaction is not None:
            self._holding.queue(request, entry, self._holding.transaction)
        else:
            self._holding.weigh(request, entry)

    async def _wait_for_word(self, request: Request, template: str) -> None:
        """Take a request again once somebody has said whether it may begin."""
        await self._judge.ask(template)
        if self.client is None or self.is_ending:
            request.close()
        else:
            self.put_back = request

    # --- greeting ------------------------------------------------------------------------------

    def auth(self, request: Request, entry: Entry) -> None:
        """AUTH."""
        words = request.arguments
        if not entry.accepts(len(words)) or len(words) > 3:  # noqa: PLR2004  user and password
            self.say(wrong_number(entry))
        elif self._holding.transaction is not None:
            self._spoil(NOT_IN_MULTI)
        elif self._opens(words[-2] if len(words) == 3 else b"default", words[-1]):  # noqa: PLR2004
            self.work(self._sign_in(None))
        else:
            self._turn_away()

    def _opens(self, user: bytes, password: bytes) -> bool:
        return self.gate.is_secret(user, password)

    def _turn_away(self) -> None:
        self.ledger.tell("bypass", "a client without the secret of this run was turned away")
        self.say(WRONGPASS)
        self._wrong += 1
        if self._wrong >= MOST_WRONG:
            self.is_ending = True
            self.check_end()

    async def _sign_in(self, then: Request | None) -> None:
        """Open the server's side, if that is not done; then answer, or forward `then`."""
        if self.server is None:
            why = await self._connect()
            if why:
                self.say(f"HANDRAIL the server does not let the guard in: {why}")
                self.is_ending = True
                return
        self._known = self.requests.is_known = True
        if then is None:
            self.pairing.expect(Local(OK))
        else:
            line = await self.told(then)
            if line[:1] != b"-" and len(then.arguments) > 1:
                self.pairing.protocol = 3 if then.arguments[1] == b"3" else 2

    async def _connect(self) -> str:
        """Open the server's side; return why it could not be; empty when it is open."""
        try:
            self.server = await self.gate.connect(self)
        except OSError as error:
            return str(error)
        answers = await self.asked(self.gate.sign_in(), whole=False)
        for answer in answers:
            if isinstance(answer, ErrorReply):
                return answer.text.decode("utf-8", "backslashreplace")
        return ""

    def hello(self, request: Request, entry: Entry) -> None:
        """HELLO."""
        del entry
        words = request.arguments
        given, rest = _split_hello(words)
        if self._holding.transaction is not None:
            self._spoil(NOT_IN_MULTI)
        elif given is None and not self._known:
            self.say(NOAUTH_HELLO)
        elif given is not None and not self._opens(*given):
            self._turn_away()
        else:
            self.work(self._sign_in(Request(rest, encode(*rest))))

    def quit(self, request: Request, entry: Entry) -> None:
        """QUIT."""
        del request, entry
        self.pairing.expect(Local(OK))
        self.is_ending = True
        self.check_end()

    def reset(self, request: Request, entry: Entry) -> None:
        """RESET."""
        del entry
        if not self._known:
            self.pairing.expect(Local(b"+RESET\r\n"))
            return
        self.work(self._start_again(request))

    async def _start_again(self, request: Request) -> None:
        line = await self.told(request)
        if line[:1] == b"-":
            return
        self._known = self.requests.is_known = self._in_multi = self._holding.watches = False
        self._holding.database, self._holding.transaction, self.pairing.protocol = 0, None, 2
        self.pairing.subscribed = dict.fromkeys(self.pairing.subscribed, 0)
        await self.asked(self.gate.sign_in(), whole=False)

    # --- the connection's own commands ---------------------------------------------------------

    def select(self, request: Request, entry: Entry) -> None:
        """SELECT."""
        if self._in_multi or not entry.accepts(len(request.arguments)):
            self._other(request, entry)
        elif self._holding.transaction is None:
            self.work(self._change_database(request))
        else:
            self._select_later(request, self._holding.transaction)

    async def _change_database(self, request: Request) -> None:
        line = await self.told(request)
        if line == b"+OK":
            self._holding.database = int(request.arguments[1])

    def _select_later(self, request: Request, transaction: Kept) -> None:
        try:
            database = whole(request.arguments[1])
        except MalformedError:
            database = -1
        if 0 <= database < self._judge.databases:
            transaction.database = database
        # Else the server says no, and stays where it is.
        self._holding.keep(Queued(request, None), transaction)

    def _other(self, request: Request, entry: Entry) -> None:
        if self._judge.mode == "observe":
            self._observe(request, entry)
        elif self._holding.transaction is not None:
            self._holding.queue(request, entry, self._holding.transaction)
        else:
            self.forward(request)

    def watch(self, request: Request, entry: Entry) -> None:
        """WATCH."""
        if self._holding.transaction is not None:
            self.say("ERR WATCH inside MULTI is not allowed")
            return
        refusal = self._judge.follow_template(
            self._judge.template(entry, request.arguments, self._holding.database)
        )
        if refusal is not None:
            self.say_no(refusal)
            return
        self._holding.watches = self._holding.watches or entry.accepts(len(request.arguments))
        self.forward(request)

    def unwatch(self, request: Request, entry: Entry) -> None:
        """UNWATCH."""
        if self._holding.transaction is not None:
            self._holding.keep(Queued(request, None), self._holding.transaction)
            return
        del entry
        self._holding.watches = False
        self.forward(request)

    def subscribe(self, request: Request, entry: Entry) -> None:
        """SUBSCRIBE and its like."""
        if self._holding.transaction is not None or self._in_multi:
            self._spoil(NOT_IN_MULTI)
        elif not entry.accepts(len(request.arguments)):
            self.forward(request)
        else:
            count = len(request.arguments) - 1 or None
            self.forward(request, Subscribing(SUBSCRIBING[entry.name], count))

    def config_get(self, request: Request, entry: Entry) -> None:
        """CONFIG GET: the server's own secrets are left out."""
        if self._holding.transaction is not None or self._in_multi:
            self._spoil("ERR CONFIG GET is not allowed inside a transaction behind a guard")
            return
        del entry
        self.forward(request, Changed(hiding.without_secrets))

    def client_reply(self, request: Request, entry: Entry) -> None:
        """Refuse what makes the server leave replies out; ON changes nothing."""
        del entry
        if [word.upper() for word in request.arguments[2:]] == [
            b"ON"
        ] and not self._holding.transaction:
            self.forward(request)
        else:
            self._spoil("ERR CLIENT REPLY is not allowed behind a guard")

    def monitor(self, request: Request, entry: Entry) -> None:
        """MONITOR and replication: what would come is none of the script's business."""
        del request
        self.ledger.tell("bypass", f"{entry.name} was refused")
        self._spoil(f"HANDRAIL {entry.name} is not allowed behind a guard")

    def _spoil(self, error: str) -> None:
        """Refuse a command; a transaction that it stands in will not run."""
        if self._holding.transaction is not None:
            self._holding.transaction.is_dirty = True
            self.say(error)
        elif self._in_multi:
            # The server must know, too: it gets a command that it refuses.
            line = b"-%s\r\n" % error.encode()
            self.forward(Request([], encode(b"HANDRAIL")), Changed(lambda _: line))
        else:
            self.say(error)

    def transact(self, request: Request, entry: Entry) -> None:
        """MULTI, EXEC, DISCARD."""
        if self._judge.mode == "observe":
            self._observe(request, entry)
        elif entry.name == "MULTI":
            self._holding.multi(request, entry)
        elif entry.name == "EXEC":
            self._holding.execute(request, entry)
        else:
            self._holding.discard(request, entry)

    # --- observing -----------------------------------------------------------------------------

    def _observe(self, request: Request, entry: Entry) -> None:
        if entry.kind != "special":
            self._judge.follow(entry, request.arguments, self._holding.database)
        if entry.kind == "admin":
            self.ledger.tell("bypass", f"{entry.name} was passed on")
        if entry.name == "MULTI":
            self._in_multi = True
        elif entry.name in {"EXEC", "DISCARD"}:
            self._in_multi = False
        blocks = entry.may_block(request.arguments) and not self._in_multi
        self.forward(request, Waiting() if blocks else None)


def _split_hello(words: Sequence[bytes]) -> tuple[tuple[bytes, bytes] | None, list[bytes]]:
    """Return user and password of a HELLO, and its words without them."""
    at = 2
    while at < len(words) - 1:
        if words[at].upper() == b"AUTH" and at + 2 < len(words):
            return (words[at + 1], words[at + 2]), [*words[:at], *words[at + 3 :]]
        at += 2
    return None, list(words)


_Handler = Callable[[Session, Request, Entry], None]
_SPECIAL: dict[str, _Handler] = {
    "AUTH": Session.auth,
    "HELLO": Session.hello,
    "QUIT": Session.quit,
    "RESET": Session.reset,
    "SELECT": Session.select,
    "WATCH": Session.watch,
    "UNWATCH": Session.unwatch,
    **dict.fromkeys(("MULTI", "EXEC", "DISCARD"), Session.transact),
    "CONFIG GET": Session.config_get,
    "CLIENT REPLY": Session.client_reply,
    "MONITOR": Session.monitor,
    "SYNC": Session.monitor,
    "PSYNC": Session.monitor,
    **dict.fromkeys(SUBSCRIBING, Session.subscribe),
}
