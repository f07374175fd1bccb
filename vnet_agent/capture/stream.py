"""A capture as a stream of pcapng blocks: from the ring to whoever reads, as fast as they do."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator

from vnet_agent.capture.pcapng import Writer
from vnet_agent.datapath.captured import Capture, CapturedFrame

#: Seconds without a frame after which `blocks` says that it lives.
TICK = 1.0
#: Seconds that frames are gathered: a batch costs little more than one frame.
GATHER = 0.02
#: Bytes of a batch so large that the ring is rather emptied than left to gather.
_LARGE = 1 << 16


class CaptureStream:
    """Of a running capture, which stays the caller's to close; lives in one event loop.

    Ends after `count` frames, after `seconds`, or when `stop` is called; statistics come last.
    """

    def __init__(
        self,
        capture: Capture,
        writer: Writer,
        *,
        count: int | None = None,
        seconds: float | None = None,
    ) -> None:
        self._capture = capture
        self._writer = writer
        self._left = count
        self._seconds = seconds
        self._wake = asyncio.Event()
        self._is_stopped = False
        self._start_ns = time.time_ns()
        #: Frames that were given, by port.
        self.delivered: Counter[str] = Counter()

    def stop(self) -> None:
        """End with what has been captured so far."""
        self._is_stopped = True
        self._wake.set()

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Whole blocks; b"" when nothing came for a while. Raises DatapathError."""
        loop = asyncio.get_running_loop()
        end = None if self._seconds is None else loop.time() + self._seconds
        yield self._writer.header()
        while not self._is_done():
            rest = TICK if end is None else min(TICK, end - loop.time())
            if rest <= 0:
                break
            await self._wait(rest)
            batch = await self._take()
            yield batch
            if len(batch) < _LARGE and not self._is_done():
                await asyncio.sleep(GATHER)
        await asyncio.to_thread(self._capture.stop)
        while batch := await self._take():
            yield batch
        counts = await asyncio.to_thread(self._capture.counts)
        yield self._writer.statistics(
            counts, self.delivered, start_ns=self._start_ns, end_ns=time.time_ns()
        )

    def _is_done(self) -> bool:
        return self._is_stopped or self._left == 0

    async def _wait(self, seconds: float) -> None:
        """Until there are frames, or `stop` is called."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._capture.fileno(), self._wake.set)
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(self._capture.fileno())
            self._wake.clear()

    async def _take(self) -> bytes:
        if self._left == 0:
            return b""
        frames, batch = await asyncio.to_thread(self._encode, self._left)
        if self._left is not None:
            self._left -= len(frames)
        self.delivered.update(frame.port for frame in frames)
        return batch

    def _encode(self, most: int | None) -> tuple[list[CapturedFrame], bytes]:
        """In a thread: neither the copy nor the packing holds the event loop up."""
        frames = self._capture.read()[:most]
        return frames, b"".join(map(self._writer.packet, frames))
