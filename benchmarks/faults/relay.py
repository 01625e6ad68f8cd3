"""Stands between a search and its storage, to be killed: ``python -m benchmarks.faults.relay``.

A storage server that keeps its objects in memory would lose them with its process; one that does
not is back with them. So the way to it is killed: to clients it is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys


async def serve(port: int, target: int) -> None:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(copy(reader, down), copy(up, writer))

    # The port of a relay that was killed a moment ago: its connections are still closing.
    server = await asyncio.start_server(relay, "127.0.0.1", port, reuse_address=True)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
