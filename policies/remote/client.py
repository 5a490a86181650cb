"""What the policies behind a socket share: their token, their end, and what they take for actions."""

import os
import warnings
from typing import Any, Self

import numpy as np

from ...data.errors import ConfigError, RemoteError
from ..policy import Policy
from .connection import Connection, host_of, is_loopback

TOKEN = "SENSORIMOTOR_TOKEN"  # the environment variable that holds the token, if no argument does


class Client(Policy):
    """A policy that samples in another process; use it as a context, or `close` it.

    Attributes:
        connection: to its server.
    """

    connection: Connection

    def close(self) -> None:
        """Leave the server."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *rest: object) -> None:
        self.close()


def find_token(given: str | None) -> str | None:
    """The token given, or else that of the environment; None if there is none.

    Raises:
        ConfigError: for one that no header can carry.
    """
    token = given or os.environ.get(TOKEN) or None
    if token is not None:
        check_token(token)
    return token


def check_token(token: str) -> None:
    """Raise unless a header carries this token as it is; the message does not repeat it."""
    if not token.strip() or token != token.strip() or not token.isprintable():
        raise ConfigError(
            "the token is empty, begins or ends with blanks, or holds line breaks or the like; "
            f"give a long random one of letters and digits, or correct {TOKEN}"
        )


def token_for(url: str, given: str | None) -> str | None:
    """`find_token`, with a warning where everybody on the way could read it."""
    token = find_token(given)
    if token is not None and url.startswith("ws://") and not is_loopback(host_of(url)):
        warnings.warn(f"the token travels to {url} unencrypted; use wss:// beyond this machine", stacklevel=3)
    return token


def check_actions(array: np.ndarray[Any, Any], shape: tuple[int, ...], *, server: str) -> None:
    """Raise unless an array holds finite actions of this shape."""
    if array.shape != shape or array.dtype.kind != "f":
        raise RemoteError(
            f"{server} answered with {array.dtype} of shape {array.shape}; floating-point actions of shape {shape} "
            "were due"
        )
    if not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise RemoteError(
            f"{server} answered with {bad} of {array.size} numbers that are not finite; refused"
        )
