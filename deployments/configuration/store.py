"""The store in the configuration: where the global queue is kept, and how to get in."""

from __future__ import annotations

import os

from pydantic import Field, SecretStr, field_validator, model_validator

from deployments.configuration.strict import Strict
from fairness.store.address import Address, parse
from fairness.store.settings import Credentials, StoreSettings, Tls

EMBEDDED = "embedded"


class StoreConfig(Strict):
    """Where the global queue is kept, and how to get in.

    Passwords are best left out of here: `password_file`, FAIRLANE_STORE_PASSWORD and
    FAIRLANE_SENTINEL_PASSWORD are read where the connections are made.
    """

    url: str = Field(
        default=EMBEDDED,
        repr=False,
        description="`embedded` for a Valkey inside the application (one machine), or the URL of a "
        "server, see [below](#the-store); REDIS_URL in the environment overrides it.",
    )
    username: str | None = Field(
        default=None, min_length=1, description="Who we are to the store (an ACL user)."
    )
    password: SecretStr | None = Field(
        default=None, description="The user's password; `password_file` keeps it out of here."
    )
    password_file: str | None = Field(
        default=None,
        min_length=1,
        description="The password's file on every node, instead of `password`.",
    )
    sentinel_username: str | None = Field(
        default=None, min_length=1, description="Who we are to the store's Sentinels."
    )
    sentinel_password: SecretStr | None = Field(
        default=None, description="The password to the Sentinels."
    )
    sentinel_password_file: str | None = Field(
        default=None,
        min_length=1,
        description="The file of that password on every node, instead of `sentinel_password`.",
    )
    ca_file: str | None = Field(
        default=None,
        min_length=1,
        description="A certificate authority to trust besides the system's (a PEM file on every "
        "node).",
    )
    cert_file: str | None = Field(
        default=None,
        min_length=1,
        description="Our certificate, for stores that ask for one (a PEM file on every node).",
    )
    key_file: str | None = Field(
        default=None, min_length=1, description="The private key of `cert_file`."
    )
    connect_timeout_s: float = Field(
        default=1.0,
        gt=0,
        description="Seconds to open a connection, TLS and log-in included.",
    )
    call_timeout_s: float = Field(
        default=2.0,
        gt=0,
        description="Seconds for a call in all: finding the server, connecting, the answer.",
    )
    sender_ttl_s: float = Field(
        default=10.0, ge=3, description="A router or replica silent for so many seconds is dead."
    )
    fail_closed: bool = Field(
        default=False,
        description="While the store is away: refuse requests (503) rather than let each router "
        "keep a queue of its own.",
    )

    @field_validator("url")
    @classmethod
    def _is_readable(cls, url: str) -> str:
        if url != EMBEDDED:
            _parsed_url("store.url", url)
        return url

    @model_validator(mode="after")
    def _fits_together(self) -> StoreConfig:
        for who in ("", "sentinel_"):
            if getattr(self, f"{who}password") and getattr(self, f"{who}password_file"):
                raise ValueError(f"store.{who}password and store.{who}password_file: give only one")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("store.cert_file and store.key_file belong together: give both")
        if self.connect_timeout_s > self.call_timeout_s:
            raise ValueError("store.connect_timeout_s is a part of store.call_timeout_s: lower it")
        if self.url == EMBEDDED:
            return self
        address = _parsed_url("store.url", self.url)
        if address.password is not None and (self.password or self.password_file):
            raise ValueError(
                "store.url has a password, and so has store.password or store.password_file: "
                "give only one"
            )
        if address.username is not None and self.username is not None:
            raise ValueError("store.url has a user, and so has store.username: give only one")
        return self

    def resolved(self) -> str:
        """The URL to use."""
        return os.environ.get("REDIS_URL") or self.url

    def settings(self) -> StoreSettings:
        """What routers and replicas are given. Raises ValueError for what can't work."""
        url = self.resolved()
        if url != EMBEDDED:
            variable = "REDIS_URL in the environment" if url != self.url else "store.url"
            address = _parsed_url(variable, url)
            if (self.ca_file or self.cert_file) and not address.tls:
                raise ValueError(
                    f"store.ca_file and store.cert_file are for TLS, but {variable} is not: "
                    "write rediss:// (or rediss+sentinel://, rediss+cluster://)"
                )
        return StoreSettings(
            url,
            Credentials(self.username, _clear(self.password), self.password_file),
            Credentials(
                self.sentinel_username, _clear(self.sentinel_password), self.sentinel_password_file
            ),
            Tls(self.ca_file, self.cert_file, self.key_file),
            self.connect_timeout_s,
            self.call_timeout_s,
        )


def _clear(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _parsed_url(name: str, url: str) -> Address:
    """Raises ValueError that says where the unreadable URL stands."""
    try:
        return parse(url)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
