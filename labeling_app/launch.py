"""The command that starts the labelling app; importing this module does not import Streamlit."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
import tomllib
from pathlib import Path

from pipeline.errors import InputError

APP = Path(__file__).with_name("app.py")
LOOPBACK = "127.0.0.1"
PARENT = "RECAP_LABEL_PARENT"
"""The environment variable that names the process with which the server is to end."""


def streamlit_command(
    workspace: Path, *, address: str = LOOPBACK, port: int = 8501, open_browser: bool = True
) -> list[str]:
    """The argument list of a process that serves the app for ``workspace`` until it is stopped.

    Raises ``InputError`` for an address that others can reach while nobody could sign in.
    """
    if not is_loopback(address) and not sign_in_is_set_up():
        raise InputError(
            f"others could reach {address} and label without signing in: set up [auth] (OpenID Connect) in "
            f".streamlit/secrets.toml, or use --address {LOOPBACK}"
        )
    options: dict[str, str] = {
        "server.address": address,
        "server.port": str(port),
        "server.headless": str(not open_browser).lower(),
        # Nothing of a lab's work is reported to anybody, and the code does not change under annotators.
        "browser.gatherUsageStats": "false",
        "server.fileWatcherType": "none",
        "client.toolbarMode": "minimal",
        # Set for light and dark, not for both at once: that would be a theme of our own, whatever the
        # browser wishes.
        "theme.light.primaryColor": "#1c7ed6",
        "theme.dark.primaryColor": "#4dabf7",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    serve = [sys.executable, "-m", "labeling_app.serve", "run", str(APP), *flags]
    return [*serve, "--", "--workspace", str(workspace)]


def require_free_port(address: str, port: int) -> None:
    """Raises ``InputError`` where the server could not listen, as when another app listens already."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise InputError(f"cannot listen at {address}, port {port}: {error.strerror or error}") from error
        raise InputError(
            f"port {port} is in use: if it is this app, open http://{address}:{port} in the browser; "
            "otherwise start with another, as --port " + str(port + 1 if port < 65535 else 8501)
        ) from error


def is_loopback(address: str | None) -> bool:
    """Whether a server bound to ``address`` is reached from this computer only; without one, it is not."""
    if address is None:
        return False
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def sign_in_is_set_up() -> bool:
    """Whether Streamlit will find an identity provider: ``[auth]`` in either of its two secrets files."""
    for folder in (Path.cwd(), Path.home()):
        path = folder / ".streamlit" / "secrets.toml"
        try:
            if "auth" in tomllib.loads(path.read_text(encoding="utf-8")):
                return True
        except FileNotFoundError:
            continue
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"cannot read {path}: {error}") from error
    return False
