"""Where compilations run: own threads, or a cluster that `--executor dask://host:port` names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any
from urllib.parse import urlsplit

from builder_host.errors import CompileError

_CONNECT_TIMEOUT_S = 15.0


@contextlib.contextmanager
def open_executor(executor: str | Executor | None) -> Iterator[Executor | None]:
    """An executor for compilations; one that is opened here is closed afterwards.

    Every worker needs this package in the same version, with its compiler wheels: the bytes that
    come back go into the store under a key that holds the local compiler's version.

    Args:
        executor: `dask://host:port` of a scheduler, an executor of the caller, or None.

    Raises:
        CompileError: no such form, dask.distributed is missing, or the scheduler does not answer.
    """
    if executor is None or isinstance(executor, Executor):
        yield executor
        return
    address = _dask_address(executor)
    try:
        import distributed
    except ImportError as error:
        raise CompileError(
            f"{executor}: needs the package distributed; install it with: "
            "pip install 'edgeplan[dask]'"
        ) from error
    connect: Any = distributed.Client  # untyped
    try:
        client = connect(address, timeout=_CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise CompileError(
            f"{executor}: the scheduler does not answer: {error}; is it running there "
            f"(dask scheduler --port {urlsplit(executor).port})?"
        ) from error
    try:
        if not client.scheduler_info()["workers"]:
            raise CompileError(f"{executor}: the cluster has no worker; start: dask worker ...")
        yield client.get_executor()
    finally:
        client.close()


def _dask_address(text: str) -> str:
    try:
        parts = urlsplit(text)
        if parts.scheme == "dask" and parts.hostname and parts.port:
            return f"tcp://{parts.hostname}:{parts.port}"
    except ValueError as error:
        raise CompileError(f"executor '{text}': {error}; expected dask://HOST:PORT") from error
    raise CompileError(f"executor '{text}' is unknown; expected dask://HOST:PORT")
