"""Addresses of clusters: how they are written, and whether anybody answers there. Knows no Ray."""

from __future__ import annotations

import socket

from leaktight.errors import UsageError

LOCAL = "local"
HOW = "write it like ray://HOST:10001, HOST:6379, auto or local"


def check(address: str) -> None:
    """Raises UsageError: it is no address of a cluster, or nobody answers there."""
    if address not in (LOCAL, "auto"):
        _reach(address)


def _reach(address: str) -> None:
    """Raises UsageError: as `check`. Ray itself would try for minutes, and end this process then."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdigit():
        raise UsageError(f"--cluster: {address!r} is no address of a cluster; {HOW}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--cluster: {address} cannot be reached ({error}); see that Ray runs there") from None
