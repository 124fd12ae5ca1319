"""A simulated process: the tasks that die together when it is killed.

Every task started inside a process belongs to it, by way of a context variable and the loop's task
factory. A killed process runs no line of its own any more, except what ``finally`` blocks do; its
network and disks are cut first, so those blocks reach nobody.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

_CURRENT: "ContextVar[Process | None]" = ContextVar("process", default=None)


class Process:
    """One life of one role. A restart is a new Process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        # Dicts, not sets: their order does not depend on addresses.
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._at_death: dict[Callable[[], None], None] = {}

    @staticmethod
    def current() -> "Process | None":
        """The process whose code runs now; None outside of all."""
        return _CURRENT.get()

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start a task inside this process."""
        context = copy_context()
        context.run(_CURRENT.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    def at_death(self, hook: Callable[[], None]) -> Callable[[], None]:
        """Have ``hook`` called when the process is killed; returns how to take that back."""
        self._at_death[hook] = None
        return lambda: self._at_death.pop(hook, None)

    def adopt(self, task: "asyncio.Task[Any]") -> None:
        """Count a task as this process's."""
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        if not self.alive:
            task.cancel()

    async def kill(self) -> None:
        """End it now, as SIGKILL would. Waits until nothing of it is left."""
        self.alive = False
        hooks, self._at_death = list(self._at_death), {}
        for hook in hooks:
            hook()
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    # Looked at: a dead process's last exception is nobody's business.
                    task.exception()


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop count tasks to the process that starts them."""
    loop.set_task_factory(_make)


def _make(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, T] | Generator[Any, None, T],
    context: Context | None = None,
) -> "asyncio.Task[T]":
    task: asyncio.Task[T] = asyncio.Task(work, loop=loop, context=context)
    process = _CURRENT.get() if context is None else context.get(_CURRENT)
    if process is not None:
        process.adopt(task)
    return task
