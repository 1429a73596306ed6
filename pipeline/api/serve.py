"""`ssna.serve`: a finished run behind HTTP, until it is interrupted."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable
from pathlib import Path

from ssna.devices import resolve_device
from ssna.errors import ServiceError
from ssna.extras import check_installed
from ssna.runs import open_run

LONGEST_HEAD = 64 * 1024
"""Bytes of a request's address and headers"""
_OF_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


def serve(
    run: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Answer requests from a run folder (docs/serving.md) until Ctrl-C.

    Args:
        run: a run folder.
        host: the address to listen at; the default answers this machine alone, and no requests for other hosts. There
            is no authentication.
        port: 0 takes a free one.
        device: a PyTorch device, or `auto`.
        on_start: called with the service's URL as soon as requests are answered or queued.

    Raises:
        PackageError: if FastAPI or uvicorn is not installed.
        RunError: if the folder is no finished run.
        ServiceError: if no host is named, or it cannot listen there.
    """
    for package in ("fastapi", "fastapi_offline", "uvicorn"):
        check_installed(package, "serve", "the service")
    if not host.strip():  # It would mean every address of this machine.
        raise ServiceError(
            f"host '{host}': expected an address, such as 127.0.0.1 for this machine alone, or 0.0.0.0 for others too."
        )
    if not 0 <= port <= 65535:
        raise ServiceError(f"port {port}: expected 0 to 65535.")
    import uvicorn

    from ssna.service import make_service

    where = resolve_device(device)
    opened = open_run(Path(run), where, with_added=True)
    with _listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        here = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback
        hosts = list(dict.fromkeys([*_OF_THIS_MACHINE, shown.lower()])) if here else None
        service = make_service(opened, where, hosts)
        # Not whatever parser is installed: httptools, which uvicorn prefers, reads addresses and headers of any length.
        config = uvicorn.Config(
            service, log_level="warning", access_log=False, http="h11", h11_max_incomplete_event_size=LONGEST_HEAD
        )
        server = uvicorn.Server(config)
        try:
            if on_start is not None:
                on_start(f"http://{shown}:{listener.getsockname()[1]}")
            server.run(sockets=[listener])
        except KeyboardInterrupt:  # The way to end it; the server has answered what it had accepted.
            return


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        # Python adds the address to what the system says; the errors of names have numbers of their own, below 0.
        number = error.errno or 0
        said = os.strerror(number) if number > 0 else "no such name or address"
        raise ServiceError(
            f"cannot listen at {host}, port {port} ({said}). Give an address of this machine (--host) and a free port "
            "(--port; 0 takes any)."
        ) from error
