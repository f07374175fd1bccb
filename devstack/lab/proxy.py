"""Makes a port inside a namespace reachable at 127.0.0.1 outside: for the controller's page.

    python proxy.py NAMESPACE_FILE LISTEN_PORT TARGET_ADDRESS TARGET_PORT READY_FILE

A process with a socket in either world: it listens first, then enters the namespace, so that no
route, no address and no forwarding is needed. Standard library only.
"""

import asyncio
import contextlib
import ctypes
import os
import socket
import sys

CLONE_NEWNET = 0x40000000


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


async def serve(listener: socket.socket, address: str, port: int) -> None:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(address, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    async with await asyncio.start_server(forward, sock=listener) as server:
        await server.serve_forever()


def enter_namespace(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY)
    if libc.setns(fd, CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), f"cannot enter {path}")
    os.close(fd)


def main() -> None:
    namespace, listen_port, address, port, ready = sys.argv[1:]
    listener = socket.create_server(("127.0.0.1", int(listen_port)))
    enter_namespace(namespace)
    with open(ready, "w") as file:
        file.write(str(listener.getsockname()[1]))
    asyncio.run(serve(listener, address, int(port)))


if __name__ == "__main__":
    main()
