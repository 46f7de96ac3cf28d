"""One connection to a Temporal server, for code that is not async.

Rules:
- Temporal's client is async throughout; it lives in a thread of its own, which nobody else sees.
- How the server is reached beyond its address (TLS, an API key) is Temporal's own configuration:
  `TEMPORAL_TLS_...`, `TEMPORAL_API_KEY`, and its file.
- Nothing is connected before it is needed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from handrail.errors import EngineError, UsageError
from handrail.plans.walk_records import walk_chain
from handrail.ports import Journal

if TYPE_CHECKING:
    from temporalio.client import Client

T = TypeVar("T")
DEFAULT_HEARTBEAT_S = 10.0
_HOME_CHARACTERS = 12
_OWN_CHAIN = "temporal"
_CLOSING_S = 5.0
# A worker that stands still may have been handed a workflow's task: another one gets it then.
_THINKING = timedelta(seconds=5)
_ANSWER = timedelta(seconds=5)


@dataclass(frozen=True)
class Where:
    """A namespace of a Temporal server.

    Attributes:
        address: `host:port`.
        namespace: on it.
        heartbeat_s: after so long without a word from its worker, a step is taken up.
        environment: where Temporal's own settings are read.
    """

    address: str
    namespace: str = "default"
    heartbeat_s: float = DEFAULT_HEARTBEAT_S
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, text: str, environment: Mapping[str, str]) -> Where:
        """Return what `HANDRAIL_TEMPORAL` means: `host:port` or `host:port/namespace`.

        Raises:
            UsageError: it means nothing, or the extra is not installed.
        """
        address, _, namespace = text.partition("/")
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or "/" in namespace or not text.isprintable():
            raise UsageError(
                "temporal.address",
                f"HANDRAIL_TEMPORAL is `{text[:80]}`, which is no host:port/namespace",
                hint="export HANDRAIL_TEMPORAL=temporal.internal:7233/default",
            )
        insist_on_extra()
        return cls(address, namespace or "default", environment=environment)

    def __str__(self) -> str:
        return f"{self.address}/{self.namespace}"


def insist_on_extra() -> None:
    """Raise where Temporal's package is not installed.

    Raises:
        UsageError: says how it is.
    """
    if find_spec("temporalio") is None:
        raise UsageError(
            "temporal.extra",
            "runs on a Temporal server need `temporalio`, which is not installed",
            hint="pip install 'handrail[temporal]'",
        )


def home(journal: Journal, where: Where) -> str:
    """Return a name for the journal: another one's runs are never mixed up with its own.

    The hash of its first anchor; an empty journal is given one.
    """
    first = next(journal.anchors(), None)
    if first is None:
        journal.append(_OWN_CHAIN, "chosen", {"namespace": where.namespace})
        first = next(journal.anchors())
    return first.hash[:_HOME_CHARACTERS]


def queue(name: str) -> str:
    """Return the task queue of workflows, and of the activities that read and write the journal."""
    return f"handrail-{name}"


def acts_queue(name: str) -> str:
    """Return the task queue of steps."""
    return f"handrail-{name}-steps"


def workflow_id(name: str, run: int) -> str:
    """Return the workflow's id of a walk: there is one at a time."""
    return f"handrail-{name}-{walk_chain(run)}"


async def connect(where: Where) -> Client:
    """Return a client.

    Raises:
        EngineError: the server does not answer, or has no such namespace.
    """
    from temporalio.client import Client  # noqa: PLC0415
    from temporalio.envconfig import ClientConfigProfile  # noqa: PLC0415
    from temporalio.service import RPCError  # noqa: PLC0415

    profile = ClientConfigProfile.load(override_env_vars=dict(where.environment))
    settings: dict[str, Any] = {
        **profile.to_client_connect_config(),
        "target_host": where.address,
        "namespace": where.namespace,
    }
    try:
        client = await Client.connect(**settings)
        await ask_for_nothing(client)
    except (RPCError, RuntimeError) as error:
        raise away(where, error) from error
    return client


async def ask_for_nothing(client: Client) -> None:
    """See that the server answers, and has the namespace."""
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest  # noqa: PLC0415  heavy

    request = DescribeNamespaceRequest(namespace=client.namespace)
    await client.workflow_service.describe_namespace(request, timeout=_ANSWER)


def away(where: Where, error: BaseException) -> EngineError:
    """Return the error of a server that does not answer as it should."""
    told = str(error).splitlines() or [repr(error)]
    return EngineError(
        "temporal.away",
        f"the Temporal server at {where} does not do what it is asked: {told[0][:300]}",
        hint="look at the server and at HANDRAIL_TEMPORAL; what is recorded is safe",
    )


class Link:
    """A client in a thread of its own, connected when it is first used."""

    def __init__(self, where: Where) -> None:
        """Begin with no thread."""
        self.where = where
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: Client | None = None

    def do(self, what: Callable[[Client], Awaitable[T]]) -> T:
        """Return what a call of the client returns.

        Raises:
            EngineError: the server does not answer.
        """
        from temporalio.service import RPCError  # noqa: PLC0415  heavy

        try:
            return asyncio.run_coroutine_threadsafe(self._do(what), self._running()).result()
        except RPCError as error:
            raise away(self.where, error) from error

    def close(self) -> None:
        """End the thread."""
        with self._starting:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
            self._client = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_CLOSING_S)

    async def _do(self, what: Callable[[Client], Awaitable[T]]) -> T:
        if self._client is None:
            self._client = await connect(self.where)
        return await what(self._client)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve, args=(loop,), name="handrail-temporal", daemon=True
                )
                self._thread.start()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def start(client: Client, where: Where, name: str, run: int, *, look: bool = False) -> bool:
    """Start the workflow of a walk; return False where there is one already.

    Args:
        client: connected.
        where: the server.
        name: of the journal.
        run: number of the walk.
        look: tell the one that is there, or the new one, to look for words.
    """
    from temporalio.exceptions import WorkflowAlreadyStartedError  # noqa: PLC0415  heavy

    try:
        await client.start_workflow(
            "handrail-walk",
            {"run": run, "heartbeat_s": where.heartbeat_s, "steps_queue": acts_queue(name)},
            id=workflow_id(name, run),
            task_queue=queue(name),
            start_signal="look" if look else None,
            task_timeout=_THINKING,
            rpc_timeout=_ANSWER,
        )
    except WorkflowAlreadyStartedError:
        return False
    return True


async def has_worker(client: Client, name: str) -> bool:
    """Whether the server has heard of a worker for the journal's steps in the last minutes."""
    from temporalio.api.enums.v1 import TaskQueueType  # noqa: PLC0415  heavy
    from temporalio.api.taskqueue.v1 import TaskQueue  # noqa: PLC0415
    from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest  # noqa: PLC0415

    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=acts_queue(name)),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    )
    found = await client.workflow_service.describe_task_queue(request, timeout=_ANSWER)
    return bool(found.pollers)
