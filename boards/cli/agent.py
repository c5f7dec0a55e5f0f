"""Serve hosts on this board: identify, take plans and candidates, measure, run.

On a login console one line is enough: edgeplan agent --stdio
It says that it is ready, serves one host, and gives the shell back when the host has gone.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Iterator

from boards.agent.agent import Agent
from boards.agent.config import AgentConfig
from boards.agent.heartbeat import Heartbeat
from boards.errors import LinkAddressError, LinkError
from boards.link.connecting import BASE_BAUD, READY_LINE
from boards.link.key_file import read_link_key
from boards.link.transports.base import DescriptorTransport
from boards.store.reader import DEFAULT_ROOT
from runtime_edge.systemd import Notifier

_KEY_VARIABLE = "EDGEPLAN_LINK_KEY"
_QUIET_S = 2.5  # a host that still believes in its agent sends something every two seconds
_QUIET_WITHIN_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    line = parser.add_argument_group("lines (at least one; --stdio stands alone)")
    line.add_argument("--stdio", action="store_true", help="standard input and output; one host")
    line.add_argument(
        "--serial",
        action="append",
        default=[],
        metavar="DEV[@BAUD]",
        help=f"serial port, e.g. /dev/ttyTHS0@115200 (default: {BASE_BAUD} baud)",
    )
    line.add_argument(
        "--tcp",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="listen there; other than loopback addresses need --link-key",
    )
    parser.add_argument(
        "--store", default=DEFAULT_ROOT, metavar="DIR", help=f"plan store ({DEFAULT_ROOT})"
    )
    parser.add_argument(
        "--link-key",
        metavar="FILE",
        default=os.environ.get(_KEY_VARIABLE),
        help=f"hosts must know this key of 'edgeplan link-key' (default: ${_KEY_VARIABLE})",
    )
    parser.add_argument(
        "--key", metavar="PUB", help="plans must be signed; public key of 'edgeplan keygen'"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.stdio == bool(args.serial or args.tcp):
        raise LinkError("name a line: --stdio alone, or --serial and --tcp in any number")
    manager = Notifier(os.environ)
    config = AgentConfig(
        store=os.path.abspath(args.store),
        key=read_link_key(args.link_key) if args.link_key else None,
        public_key=_public_key(args.key),
        software=_software(),
        ends_with_session=args.stdio,
        alive=Heartbeat(manager.watchdog_s, manager.alive).beat,
    )
    if args.stdio:
        with _guarded_terminal() as is_child:
            if is_child:
                _serve_stdio(config)
        return 0
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    agent = Agent(config)
    try:
        for text in args.tcp:
            agent.add_listener(_listener(text, has_key=config.key is not None))
        for text in args.serial:
            _add_serial(agent, text)
    except BaseException:
        agent.stop()
        agent.run()  # gives back what was opened
        raise
    _stop_on_signals(agent)
    manager.ready()
    agent.run()
    manager.stopping()
    return 1 if agent.is_abandoned else 0


def _serve_stdio(config: AgentConfig) -> None:
    agent = Agent(config)
    transport = DescriptorTransport(
        os.dup(0),
        os.dup(1),
        name="standard input and output",
        payload_bytes=2048 if os.isatty(0) else 32768,
        batch_bytes=1 if os.isatty(0) else 65536,
    )
    os.write(1, b"\r\n" + READY_LINE + b" 1 ready\r\n")
    agent.add_transport(transport)
    _stop_on_signals(agent)
    agent.run()


@contextlib.contextmanager
def _guarded_terminal() -> Iterator[bool]:
    """Let a child process serve; afterwards put terminal and descriptors back as they were.

    The parent outlives whatever happens to the child, so that the shell is usable again even when
    the agent is killed. Yields whether this is the child.
    """
    import termios
    import tty

    is_terminal = os.isatty(0)
    before = termios.tcgetattr(0) if is_terminal else None
    blocking = [os.get_blocking(fd) for fd in (0, 1)]
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if is_terminal:
                tty.setraw(0)
            yield True
            status = 0
        except BaseException as error:
            logging.getLogger(__name__).exception("the agent failed: %s", error)
        finally:
            os._exit(status)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: _pass_on(pid, number))
    _, status = os.waitpid(pid, 0)
    if is_terminal and status != 0:
        _discard_until_quiet()
    for fd, is_blocking in zip((0, 1), blocking, strict=True):
        os.set_blocking(fd, is_blocking)
    if before is not None:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)
        os.write(1, b"\r\nedgeplan agent: ended\r\n")
    yield False


def _discard_until_quiet() -> None:
    """Take what a host still sends to an agent that was killed, so that the shell gets none of it.

    Frames hold every byte, also those by which a terminal ends a shell or stops its output. They
    end with a zero, which nobody types: an impatient person does not make the wait longer.
    """
    now = time.monotonic()
    quiet_at, end = now + _QUIET_S, now + _QUIET_WITHIN_S
    while (now := time.monotonic()) < min(quiet_at, end):
        if not select.select([0], [], [], min(quiet_at, end) - now)[0]:
            return
        with contextlib.suppress(BlockingIOError):
            data = os.read(0, 65536)
            if not data:
                return  # the line was hung up
            if b"\0" in data:
                quiet_at = time.monotonic() + _QUIET_S


def _pass_on(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _add_serial(agent: Agent, text: str) -> None:
    from boards.link.transports.serial import SerialTransport

    path, at, rate = text.rpartition("@")
    if not at:
        path, rate = text, str(BASE_BAUD)
    if not rate.isascii() or not rate.isdigit():
        raise LinkAddressError(f"--serial {text}: '{rate}' is no rate; expected DEV@BAUD")
    agent.add_transport(SerialTransport(path, int(rate)), base_rate=(int(rate), 1))


def _listener(text: str, *, has_key: bool) -> socket.socket:
    from boards.link.transports.tcp import listen_tcp

    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise LinkAddressError(f"--tcp {text}: expected HOST:PORT, e.g. 127.0.0.1:7417")
    return listen_tcp(host.strip("[]"), int(port), has_key=has_key)


def _stop_on_signals(agent: Agent) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: agent.stop())


def _public_key(path: str | None) -> bytes | None:
    if path is None:
        return None
    from planformat.signing import load_public_key

    return load_public_key(path)


def _software() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"edgeplan {version('edgeplan')}"
    except PackageNotFoundError:
        return "edgeplan"
