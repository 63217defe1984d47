"""uvicorn on a listener that bounds what the kernel keeps for each connection.

A kernel takes megabytes for a client that does not read. A thousand of those reach what it allows
to all TCP, and then any connection stalls. Sockets inherit the sizes from their listener.
"""

from __future__ import annotations

import socket
import sys

import uvicorn

# Bytes that the kernel keeps for a connection, in each direction.
BUFFER = 16 * 1024


def main(port: str, app: str) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for direction in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            listener.setsockopt(socket.SOL_SOCKET, direction, BUFFER)
        listener.bind(("127.0.0.1", int(port)))
        uvicorn.Server(uvicorn.Config(app, access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
