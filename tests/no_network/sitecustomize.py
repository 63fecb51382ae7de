"""With this folder on PYTHONPATH, a Python process can reach nothing beyond its own machine.

Python imports a module of this name as it starts. The audit hook below is called before any socket
connects, sends or looks up a name, and what it raises replaces the call: nothing is sent. Each attempt
is also written to the file that $NO_NETWORK_LOG names, for a program may swallow the error.
"""

import ipaddress
import os
import socket
import sys
import traceback
from pathlib import Path

CONNECTS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
LOOKS_UP = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}


class NetworkRefused(ConnectionError):
    """Raised in place of a connection beyond loopback."""


def is_local(host: str | bytes | None) -> bool:
    """True for this machine: no host at all, localhost, loopback and unspecified addresses."""
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def host_of(event: str, arguments: tuple) -> str | bytes | None:
    """The host that an audited socket call is about; None for none (Unix sockets, connected sockets)."""
    if event in LOOKS_UP:
        return arguments[0]
    connection, address = arguments
    internet = connection.family in (socket.AF_INET, socket.AF_INET6)
    return address[0] if internet and address else None


def refuse(event: str, arguments: tuple) -> None:
    """Audit hook: raises NetworkRefused for a host that is not this machine."""
    if event not in CONNECTS and event not in LOOKS_UP:
        return
    host = host_of(event, arguments)
    if is_local(host):
        return
    message = f"{event} to {host} refused: the tests allow no connection beyond loopback"
    if log := os.environ.get("NO_NETWORK_LOG"):
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(message + "\n" + "".join(traceback.format_stack(limit=12)))
    raise NetworkRefused(message)


sys.addaudithook(refuse)
