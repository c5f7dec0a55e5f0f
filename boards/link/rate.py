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
_TEST_TIMEOUT_S = 1.0
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
        patterns = [secrets.token_bytes(_TEST_BYTES) for _ in range(_NUM_TESTS)]
        if client.are_echoed(patterns, _TEST_TIMEOUT_S):
            client.call("keep_rate", timeout_s=_TEST_TIMEOUT_S)
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
