"""Runs tasks on a Ray cluster: an actor a GPU or CPU core, which takes parts and sends back their records.

What the stages read and write lies on storage that all machines share; nothing of it goes through Ray. An actor that
dies or stalls is replaced, and its part done again, as `audioprep.engine.pool` does with processes.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import re
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import ray
import ray._private.worker as ray_driver
from ray.exceptions import RayActorError, RayError

from audioprep.engine.layout import Layout
from audioprep.engine.pool import ATTEMPTS, ONE_THREAD_EACH, STALL_SECONDS, ended_too_many
from audioprep.engine.store import Record
from audioprep.engine.worker import Broken, Done, Message, Progress, Task, Worker
from audioprep.errors import SystemFault, UsageError
from audioprep.stages.base import Resources, Stage
from audioprep.storage.places import Place

POLL_SECONDS = 1.0
GROW_SECONDS = 10.0  # between two looks at how large the cluster is
LOST_NODES = 10  # that one part may see: machines that can be taken back at any time are no fault of the part's
NO_ROOM_SECONDS = 60.0  # without any worker, after which the user is told

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Share:
    """What an actor asks of the cluster, and for how many of them there is room."""

    cpus: float
    gpus: int
    room: int

    @property
    def resources(self) -> Resources:
        if self.gpus:  # Ray shows an actor no GPU but its own; a CPU core feeds it
            return Resources("cuda:0", max(1, int(self.cpus) - 1))
        return Resources("cpu", math.ceil(self.cpus))


def share_of(nodes: list[dict[str, float]], gpu: bool, workers: int) -> Share:
    """How a cluster is shared out.

    Args:
        nodes: what Ray says of each machine: how much it has of `CPU` and `GPU`.
        gpu: a GPU for each worker, with its share of the CPU cores of its machine; else CPU cores alone.
        workers: their number; 0: one a GPU, or one a CPU core.
    """
    if gpu:
        hosts = [node for node in nodes if node.get("GPU", 0) >= 1]
        cpus = min((node.get("CPU", 0) // node["GPU"] for node in hosts), default=1)
        return Share(cpus, 1, workers or sum(int(node["GPU"]) for node in hosts))
    cores = [node["CPU"] for node in nodes if node.get("CPU", 0) > 0]
    if not workers or not cores:
        return Share(1, 0, workers or int(sum(cores)))
    share = sum(cores) / workers  # below one: more workers than cores, as the user wishes
    return Share(min(math.floor(share), min(cores)) if share >= 1 else math.floor(share * 100) / 100, 0, workers)


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """A connection to the cluster that `RAY_ADDRESS` names, or that `ray start` has begun here, or to one of our own.

    Raises:
        SystemFault: the cluster cannot be reached.
    """
    if ray.is_initialized():  # by the program that calls us: it stays so
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anyone
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray_driver._worker_logs_enabled = False  # it would print each lost worker on stdout, which is for our summary
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not os.environ.get("RAY_ADDRESS"):
        quiet["include_dashboard"] = False
    try:
        ray.init(**quiet)
    except Exception as error:  # Ray raises this very class where its own processes start too slowly
        where = os.environ.get("RAY_ADDRESS", "this machine")
        raise SystemFault(f"no Ray cluster at {where}: {error}. See `ray status`, or unset RAY_ADDRESS.") from error
    try:
        yield
    finally:
        ray.shutdown()


def cluster_device() -> str:
    """What `--device auto` means on a cluster: `cuda` where one of its machines has a GPU, else `cpu`."""
    with connected():
        return "cuda" if share_of(_nodes(), gpu=True, workers=0).room else "cpu"


@dataclass(frozen=True, slots=True)
class _Hello:
    """What an actor says of itself when it has started."""

    node: str
    host: str
    version: str
    sees_out: bool  # the same output folder as the pool


# Ray restarts no actor and repeats no call: the pool does, as it wants the part of a crashed actor done with every
# file isolated, and that of a lost machine never done by two actors at once. Both numbers are Ray's defaults today.
@ray.remote(max_restarts=0, max_task_retries=0)
class _Actor:
    """A worker in an actor: tasks run on a thread of their own, so that their messages can be fetched meanwhile."""

    def __init__(self, layout: Layout, stages: tuple[Stage, ...], resources: Resources) -> None:
        self._layout = layout
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._worker = Worker(layout, stages, resources, self._messages.put)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="worker")

    def hello(self, token: str) -> _Hello:
        try:
            sees = _token_path(self._layout, token).read_text() == token
        except OSError:
            sees = False
        return _Hello(ray.get_runtime_context().get_node_id(), socket.gethostname(), version("audioprep"), sees)

    def exchange(self, task: Task | None) -> list[Message]:
        """Begins a task, if there is one, and gives messages: those of a second, or all up to the end of a task."""
        if task:
            self._thread.submit(self._worker.run, task)
        deadline = time.monotonic() + POLL_SECONDS
        messages: list[Message] = []
        while not (messages and isinstance(messages[-1], Done | Broken)):
            try:
                messages.append(self._messages.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                break
        return messages


@dataclass(frozen=True, slots=True)
class _Attempt:
    task: Task
    number: int = 1
    lost_nodes: int = 0


@dataclass
class _Member:
    """An actor, from when it is asked for; `hello` is there once it has begun."""

    actor: Any
    call: ray.ObjectRef
    hello: _Hello | None = None
    attempt: _Attempt | None = None
    last_sign: float = 0.0


class RayPool:
    """The pool of `audioprep.engine.pool`, on a Ray cluster.

    Args:
        layout: of the output folder, which all machines see by the same absolute path.
        stages: what the workers run.
        gpu: whether a worker needs a GPU.
        workers: their number; 0: as many as the cluster has GPUs or CPU cores, also where it grows.
        stall_seconds: silence after which a worker counts as hung.

    Attributes:
        workers: that have started.
        redone: parts that were given out again.
    """

    def __init__(
        self,
        layout: Layout,
        stages: tuple[Stage, ...],
        gpu: bool,
        workers: int = 0,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._layout = layout
        self._stages = stages
        self._gpu = gpu
        self._number = workers
        self._stall_seconds = stall_seconds
        self._members: list[_Member] = []
        self._failed_starts = 0
        self.redone = 0

    @property
    def workers(self) -> int:
        return sum(member.hello is not None for member in self._members)

    def run(
        self, tasks: Iterable[Task], on_progress: Callable[[Progress], None]
    ) -> Iterator[tuple[Task, tuple[Record, ...]]]:
        """Gives tasks with their records as they finish, in any order.

        Raises:
            UsageError: the cluster has no GPU where one is needed, or a machine does not see the output folder.
            SystemFault: a worker says that the run cannot go on, or a part has killed every worker that tried it.
        """
        waiting = deque(_Attempt(task) for task in tasks)
        with connected(), _shared_token(self._layout) as token:
            try:
                looked = -math.inf
                began = time.monotonic()
                share = self._share()
                while waiting or any(member.attempt for member in self._members):
                    now = time.monotonic()
                    if now - looked > GROW_SECONDS:
                        looked, share = now, self._share()
                    self._start(share, len(waiting), token)
                    if began and (self.workers or now - began > NO_ROOM_SECONDS):
                        began = 0.0
                        if not self.workers:
                            logger.warning("the cluster has had no room for a worker yet (%s); see `ray status`", share)
                    for member in self._ready():
                        try:
                            found = ray.get(member.call)
                        except RayError as error:
                            self._drop(member, error, waiting)
                            continue
                        member.last_sign = now if found or member.hello is None else member.last_sign
                        task = None
                        if member.hello is None:
                            member.hello = _welcome(found, self._layout)
                            self._failed_starts = 0
                            found = []
                        for message in found:
                            match message:
                                case Progress():
                                    on_progress(message)
                                case Done(records):
                                    assert member.attempt
                                    yield member.attempt.task, records
                                    member.attempt = None
                                case Broken(error):
                                    raise error
                        if member.attempt is None:
                            if not waiting:
                                self._remove(member)
                                continue
                            member.attempt = waiting.popleft()
                            member.last_sign = time.monotonic()
                            task = member.attempt.task
                        member.call = member.actor.exchange.remote(task)
                    for member in self._stalled():
                        self._drop(member, None, waiting)
            finally:
                for member in list(self._members):
                    self._remove(member)

    def _share(self) -> Share:
        share = share_of(_nodes(), self._gpu, self._number)
        if not share.room and not self._members:
            raise UsageError(
                f"the Ray cluster has no {'GPU' if self._gpu else 'CPU core'} (see `ray status`): give it machines "
                "that have, or say how many --workers to wait for."
            )
        return share

    def _start(self, share: Share, waiting: int, token: str) -> None:
        """Asks for as many actors as there is room and work for; the cluster starts them when it can."""
        busy = sum(member.attempt is not None for member in self._members)
        environment = dict.fromkeys(ONE_THREAD_EACH, "1")
        while len(self._members) < min(share.room, busy + waiting):
            actor_class: Any = _Actor
            needs = {"num_cpus": share.cpus, "num_gpus": share.gpus, "runtime_env": {"env_vars": environment}}
            actor = actor_class.options(**needs).remote(self._layout, self._stages, share.resources)
            self._members.append(_Member(actor, actor.hello.remote(token)))

    def _ready(self) -> list[_Member]:
        calls = {member.call: member for member in self._members}
        ready, _ = ray.wait(list(calls), num_returns=1, timeout=POLL_SECONDS)
        more, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return [calls[call] for call in dict.fromkeys([*ready, *more])]

    def _stalled(self) -> list[_Member]:
        silent_since = time.monotonic() - self._stall_seconds
        return [member for member in self._members if member.attempt and member.last_sign < silent_since]

    def _drop(self, member: _Member, error: RayError | None, waiting: deque[_Attempt]) -> None:
        """Ends an actor that has died (`error`) or stalled, and puts its part back.

        Raises:
            SystemFault: no other actor is to try it.
        """
        self._remove(member)
        if member.hello is None:
            self._failed_starts += 1
            if self._failed_starts == ATTEMPTS:
                raise SystemFault(f"{ATTEMPTS} workers could not start, the last because: {_said(error)}") from error
        if member.attempt is None:
            return
        self.redone += 1
        attempt = member.attempt
        if member.hello and error and _node_is_lost(member.hello.node, error):
            if attempt.lost_nodes == LOST_NODES:
                raise SystemFault(f"part {attempt.task.part.number} has lost {LOST_NODES} machines") from error
            waiting.appendleft(replace(attempt, lost_nodes=attempt.lost_nodes + 1))
            return
        if attempt.number == ATTEMPTS:
            raise ended_too_many(attempt.task, f"({_said(error)})")
        task = replace(attempt.task, isolated=True)
        waiting.appendleft(replace(attempt, task=task, number=attempt.number + 1))

    def _remove(self, member: _Member) -> None:
        self._members.remove(member)
        with contextlib.suppress(RayError):
            ray.kill(member.actor, no_restart=True)


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _node_is_lost(node: str, error: RayError) -> bool:
    """Whether an actor has gone with its machine, or cannot be reached there, and not ended by itself."""
    if isinstance(error, RayActorError) and error.preempted:
        return True
    if type(error).__name__ == "ActorUnavailableError":
        return True
    return not any(found["NodeID"] == node and found["Alive"] for found in ray.nodes())


def _said(error: RayError | None) -> str:
    """What is worth telling of Ray's many lines."""
    if error is None:
        return "it gave no sign of life"
    text = str(error).strip()
    found = re.search(r"Worker exit detail: (.*?)\. ", text) or re.search(r"(.*)\Z", text)
    return found[1] if found else text


def _token_path(layout: Layout, token: str) -> Place:
    return layout.private / f"cluster-{token}"


@contextlib.contextmanager
def _shared_token(layout: Layout) -> Iterator[str]:
    """A word in the output folder, by which an actor knows that its machine sees the same folder."""
    token = uuid.uuid4().hex
    path = _token_path(layout, token)
    path.write_text(token)
    try:
        yield token
    finally:
        path.unlink(missing_ok=True)


def _welcome(hello: _Hello, layout: Layout) -> _Hello:
    """
    Raises:
        UsageError: the actor's machine cannot take part.
    """
    if not hello.sees_out:
        raise UsageError(
            f"{layout.out}: the machine {hello.host} does not see it. With --engine ray, --out has to lie on storage "
            "that all machines share, or be a URL (s3://…), and sources likewise."
        )
    if hello.version != version("audioprep"):
        ours = version("audioprep")
        raise UsageError(
            f"the machine {hello.host} has audioprep {hello.version}, and this one {ours}: make them equal"
        )
    return hello
