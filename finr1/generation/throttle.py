"""How many requests are under way at once: what the server puts up with, and what may be lost."""

from __future__ import annotations

import asyncio
from collections import deque


class Throttle:
    """`async with`: at most `limit` requests under way. A 429 halves the limit, each full round of successes adds one.

    Additive increase, multiplicative decrease, as TCP shares a line. 429s that answer requests from before the last
    halving do not count again.
    """

    def __init__(self, most: int):
        self.most = self.limit = most
        self.active = 0
        self._successes = self._skip = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        while self.active >= self.limit:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self.active += 1

    async def __aexit__(self, *error: object) -> None:
        self.active -= 1
        self._wake()

    def adapt(self, limited: bool) -> None:
        """Count one reply, from inside the block."""
        if self._skip:
            self._skip -= 1
        elif limited:
            self.limit, self._successes = max(1, self.limit // 2), 0
            self._skip = self.active - 1
        elif self.limit < self.most:
            self._successes += 1
            if self._successes >= self.limit:
                self.limit, self._successes = self.limit + 1, 0
                self._wake()

    def _wake(self) -> None:
        free = self.limit - self.active
        while self._waiting and free > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1


class Slots:
    """Room for `count` requests that are under way or answered and not yet stored.

    Taken in the event loop, freed from the thread that stores: what is answered but on no disk is bounded, and so is
    what a kill loses and a budget overshoots.
    """

    def __init__(self, count: int):
        self._room = asyncio.Semaphore(count)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def take(self) -> None:
        """Wait for a slot."""
        self._loop = self._loop or asyncio.get_running_loop()
        await self._room.acquire()

    def give(self) -> None:
        """Give one back, inside the loop."""
        self._room.release()

    def free(self, count: int) -> None:
        """Give `count` back, from another thread."""

        def release() -> None:
            for _ in range(count):
                self._room.release()

        self._loop.call_soon_threadsafe(release)
