"""User and password, looked up on the machine that connects, at every new connection.

So a secret need not travel with the configuration, and a rotated one is used as soon as a
connection is made anew.
"""

from __future__ import annotations

import os
from pathlib import Path

from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

from fairness.store.settings import Credentials

STORE_VARIABLES = ("FAIRLANE_STORE_USERNAME", "FAIRLANE_STORE_PASSWORD")
SENTINEL_VARIABLES = ("FAIRLANE_SENTINEL_USERNAME", "FAIRLANE_SENTINEL_PASSWORD")


class LocalCredentials(CredentialProvider):
    """The environment's, else the file's, else what was configured; none is fine too."""

    def __init__(self, configured: Credentials, variables: tuple[str, str]) -> None:
        """variables: of the environment, for the user and for the password."""
        self._configured = configured
        self._variables = variables

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """What AUTH takes; nothing when there is no user and no password.

        Raises AuthenticationError when the password's file can't be read.
        """
        user_variable, password_variable = self._variables
        username = os.environ.get(user_variable) or self._configured.username
        password = os.environ.get(password_variable) or self._from_file()
        if password is None:
            password = self._configured.password
        if username is not None:
            return username, password or ""
        # redis-py sends no AUTH for an empty tuple, though its types do not say so.
        return () if password is None else (password,)  # type: ignore[return-value]

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """As `get_credentials`: the file is small and local."""
        return self.get_credentials()

    def _from_file(self) -> str | None:
        path = self._configured.password_file
        if path is None:
            return None
        try:
            password = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise AuthenticationError(f"cannot read the password file {path}: {reason}") from None
        if not password:
            raise AuthenticationError(f"the password file {path} is empty")
        return password
