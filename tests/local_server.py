"""An application served by uvicorn in a thread of this process, on a free port of this machine."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


@contextmanager
def running(app: Any) -> Iterator[int]:
    """Serve an application within the block, and return its port."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    bound = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    yield int(bound.getsockname()[1])
    server.should_exit = True
    thread.join(10)
