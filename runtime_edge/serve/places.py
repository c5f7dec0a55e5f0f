"""Places in plans' queues for requests whose bodies are still on their way.

A head that is taken holds a place, so that no more bodies are let in than the queue has room for.
Whoever sends slowly loses the place once it has had it for some time and another request wants one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from runtime_edge.serve.scheduler import PlanQueue

GRACE_NS = 1_000_000_000
"""Time for a body before it may have to give way: a megabyte at 8 Mbit/s."""


class Place:
    """One request's place. Made by `Places.take`."""

    __slots__ = ("_nbytes", "_places", "begun_ns", "give_up", "queue")

    def __init__(
        self, places: Places, queue: PlanQueue, nbytes: int, give_up: Callable[[], None]
    ) -> None:
        """Count the request as coming."""
        self._places: Places | None = places
        self._nbytes = nbytes
        self.queue = queue
        self.give_up = give_up
        self.begun_ns = 0
        queue.num_coming += 1
        queue.coming_bytes += nbytes

    def wait(self) -> None:
        """The body is waited for: from now on the place can be lost."""
        if self._places is not None:
            self.begun_ns = time.monotonic_ns()
            self._places.waiting[self] = None

    def keep(self) -> None:
        """The body is here: the place cannot be lost any more."""
        if self._places is not None:
            self._places.waiting.pop(self, None)

    def grow(self, nbytes: int) -> None:
        """More of a body whose length was not announced has come, or less than was thought."""
        if self._places is not None:
            self._nbytes += nbytes
            self.queue.coming_bytes += nbytes

    def give_back(self) -> None:
        """The request is queued, or over. Doing so twice is fine."""
        places, self._places = self._places, None
        if places is not None:
            places.waiting.pop(self, None)
            self.queue.num_coming -= 1
            self.queue.coming_bytes -= self._nbytes


class Places:
    """All places. Belongs to the event loop's thread.

    Attributes:
        waiting: those that can be lost, in the order in which their bodies were begun.
    """

    def __init__(self) -> None:
        """None taken."""
        self.waiting: dict[Place, None] = {}

    def take(self, queue: PlanQueue, nbytes: int, give_up: Callable[[], None]) -> Place:
        """Count a request whose body is on its way.

        Args:
            queue: of its plan.
            nbytes: of its body; 0 where that is unknown, see `Place.grow`.
            give_up: answers the request and gives the place back.
        """
        return Place(self, queue, nbytes, give_up)

    def make_room(self, queue: PlanQueue | None = None, *, spare: Place | None = None) -> bool:
        """Give up on the request that has been coming for longest, if that is too long.

        Args:
            queue: only on one for this plan.
            spare: of the request that wants room itself.

        Returns:
            False when there is none.
        """
        latest = time.monotonic_ns() - GRACE_NS
        for place in self.waiting:
            if place.begun_ns > latest:
                break
            if place is not spare and (queue is None or place.queue is queue):
                place.keep()  # it is asked once
                place.give_up()
                return True
        return False
