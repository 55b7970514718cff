"""Be far away: a proxy that keeps everything back for half a round trip each way."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator


async def _pass_on(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, seconds: float
) -> None:
    loop = asyncio.get_running_loop()
    due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def write() -> None:
        while True:
            moment, data = await due.get()
            await asyncio.sleep(max(0.0, moment - loop.time()))
            if not data:
                sink.close()
                return
            sink.write(data)

    writing = asyncio.create_task(write())
    data = b"."
    while data:
        with contextlib.suppress(ConnectionError):
            data = await source.read(65_536)
            due.put_nowait((loop.time() + seconds, data))
            continue
        data = b""
        due.put_nowait((loop.time() + seconds, data))
    await writing


@contextlib.contextmanager
def far(host: str, port: int, round_trip: float) -> Iterator[int]:
    """Give a loopback port that leads to a host as if it were `round_trip` s away.

    Opening a connection costs a round trip too, as it does on a real way.
    """
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(round_trip)
        there, back = await asyncio.open_connection(host, port)
        half = round_trip / 2
        ways = (_pass_on(reader, back, half), _pass_on(there, writer, half))
        await asyncio.gather(*ways)

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
