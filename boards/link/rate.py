"""The host's part in changing the rate of a serial line: PROTOCOL.md section 8."""

from __future__ import annotations

import logging
import secrets
import time

from boards.errors import CommandFailedError, LinkError, LinkLostError
from boards.link.client import BoardClient

log = logging.getLogger(__name__)

_SETTLE_S = 0.1
_TEST_BYTES = 1024
_NUM_TESTS = 4
_BITS_PER_BYTE = 11  # start, eight bits, up to two stop bits
_TRYING_S = 1.4  # after 2 s without keep_rate the board goes back
_ATTEMPT_S = 0.25  # beside the time on the line: either end may be late in changing its rate
_KEEP_TIMEOUT_S = 1.0
_FALLBACK_S = 3.0


def raise_rate(
    client: BoardClient, baud: int, stop_bits: int, base_baud: int, base_stop_bits: int
) -> bool:
    """Try a higher rate; both ends go back when the test patterns do not come through.

    Returns:
        Whether the line now runs at the higher rate.

    Raises:
        LinkLostError: the line works at neither rate.
    """
    try:
        client.call("set_rate", {"baud": baud, "stop_bits": stop_bits}, timeout_s=5)
    except CommandFailedError as error:
        log.warning("%s: the board refuses %d baud: %s", client.name, baud, error)
        return False
    time.sleep(_SETTLE_S)  # the board switches when its answer is out and acknowledged
    try:
        client.set_rate(baud, stop_bits)
        on_the_line_s = 2 * _NUM_TESTS * _TEST_BYTES * _BITS_PER_BYTE / baud
        end = time.monotonic() + _TRYING_S
        while (left_s := end - time.monotonic()) > 0:
            patterns = [secrets.token_bytes(_TEST_BYTES) for _ in range(_NUM_TESTS)]
            if client.are_echoed(patterns, min(left_s, _ATTEMPT_S + on_the_line_s)):
                client.call("keep_rate", timeout_s=_KEEP_TIMEOUT_S)
                return True
    except LinkLostError:
        if client.is_lost:
            raise
    except LinkError as error:
        log.warning("%s: %s", client.name, error)
    log.warning("%s: %d baud does not work, back to %d", client.name, baud, base_baud)
    client.set_rate(base_baud, base_stop_bits)
    time.sleep(_FALLBACK_S)  # the board goes back by itself
    client.call("ping", timeout_s=10)
    return False
