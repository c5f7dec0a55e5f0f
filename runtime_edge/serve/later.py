"""Answers that take longer than the event loop has time for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from runtime_edge.serve.errors import RequestError
from runtime_edge.serve.http_messages import Request, Response, error_response

_log = logging.getLogger(__name__)

T = TypeVar("T")


class LaterAnswers:
    """Runs what makes answers, and sends them. On the event loop's thread."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        # One thread: pages about the daemon shall not take more than one core from it.
        self._pages = ThreadPoolExecutor(1, thread_name_prefix="edgeplan-pages")

    def answer(self, request: Request, action: Coroutine[Any, Any, Response]) -> None:
        """Answer a request with what an action returns, or with the `RequestError` it raises."""

        async def run() -> None:
            try:
                response = await action
            except RequestError as error:
                response = error_response(error)
            except Exception:
                _log.exception("%s %s failed", request.method, request.path)
                response = error_response(
                    RequestError(500, "internal error; the daemon's log tells more")
                )
            request.respond(response)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def beside(self, function: Callable[[], T]) -> T:
        """Call a function on a thread of its own: large texts."""
        return await asyncio.get_running_loop().run_in_executor(self._pages, function)

    def close(self) -> None:
        """End the thread."""
        self._pages.shutdown(wait=False, cancel_futures=True)
