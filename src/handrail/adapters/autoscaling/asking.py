"""Asking AWS: clients as they are usually configured, and what their errors mean here.

Rules:
- Credentials are AWS's own business: variables, profiles, roles. None of them is read here, and
  none is shown: what AWS says of a signature is not passed on, for it quotes the request.
- A client retries by itself what AWS asks to be retried; what is left is told as passing.
- One address for every service is for doubles (moto, LocalStack); without one each has its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import exceptions
from botocore.config import Config

from handrail.errors import HandrailError, PlatformError, UsageError, sanitise

_CONNECT_S = 5
_READ_S = 20
_ATTEMPTS = 4
_MOST_TOLD = 300
_BUSY = (
    "Throttling",
    "RequestLimitExceeded",
    "TooManyRequests",
    "InternalError",
    "InternalFailure",
    "ServiceUnavailable",
    "Unavailable",
    "RequestTimeout",
    "ResourceContention",
    "ScalingActivityInProgress",
)
_DENIED = ("AccessDenied", "UnauthorizedOperation", "OptInRequired")
_UNKNOWN_WHO = (
    "AuthFailure",
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
)


class Aws:
    """The services of one account in one region."""

    def __init__(self, ref: str, region: str, address: str, environment: Mapping[str, str]) -> None:
        """Connect to nothing.

        Args:
            ref: of the platform, for errors.
            region: empty for the one that AWS's own configuration says.
            address: of every service; empty for AWS's own.
            environment: whose `AWS_...` variables the clients were made with.
        """
        self._ref = ref
        self._region = region
        self._address = address
        given = {name: value for name, value in environment.items() if name.startswith("AWS_")}
        self._environment = tuple(sorted(given.items()))

    @property
    def region(self) -> str:
        """Where it is."""
        return str(self._client("autoscaling").meta.region_name)

    @property
    def endpoint(self) -> str:
        """Host and port that answer, without what else stands in the address."""
        parts = urlsplit(str(self._client("autoscaling").meta.endpoint_url))
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    def ask(self, service: str, operation: str, **given: Any) -> dict[str, Any]:
        """Call one operation, and return its answer.

        Raises:
            PlatformError: as `translated`.
        """
        try:
            answer: dict[str, Any] = getattr(self._client(service), operation)(**given)
        except Exception as error:
            raise translated(self._ref, error) from error
        return answer

    def each(self, service: str, operation: str, key: str, **given: Any) -> Iterator[Any]:
        """Yield what stands under `key` on every page of an operation's answer."""
        try:
            pages = self._client(service).get_paginator(operation).paginate(**given)
            for page in pages:
                yield from page[key]
        except HandrailError:
            raise
        except Exception as error:
            raise translated(self._ref, error) from error

    def _client(self, service: str) -> Any:
        try:
            return _client(service, self._region, self._address, self._environment)
        except Exception as error:
            raise translated(self._ref, error) from error


@lru_cache(maxsize=24)
def _client(
    service: str, region: str, address: str, environment: tuple[tuple[str, str], ...]
) -> Any:
    """Return a client; making one takes longer than what it is asked."""
    del environment  # another one, another client
    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"max_attempts": _ATTEMPTS, "mode": "standard"},
        user_agent_extra="handrail",
    )
    session = boto3.session.Session(region_name=region or None)
    return session.client(service, endpoint_url=address or None, config=config)


def translated(ref: str, error: Exception) -> HandrailError:
    """Return what an error of boto3 means here."""
    if isinstance(error, HandrailError):
        return error
    if isinstance(error, exceptions.ClientError):
        return _refused(ref, error)
    if isinstance(error, exceptions.NoRegionError):
        return UsageError("platform.failed", f"`{ref}` has no region", hint="write `region: ...`")
    if isinstance(
        error,
        exceptions.NoCredentialsError
        | exceptions.PartialCredentialsError
        | exceptions.CredentialRetrievalError
        | exceptions.ProfileNotFound
        | exceptions.TokenRetrievalError,
    ):
        hint = "aws sts get-caller-identity     must work here"
        said = f"nobody is known to `{ref}` here: AWS finds no credentials"
        return PlatformError("platform.denied", said, hint=hint)
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        return _passing(f"`{ref}` does not answer ({type(error).__name__})")
    return _failed(ref, error)


def _failed(ref: str, error: Exception) -> HandrailError:
    if isinstance(error, ValueError):
        # What it says quotes the address, whatever else stands in that.
        return PlatformError("platform.failed", f"the `url` of `{ref}` is no address")
    if isinstance(error, exceptions.BotoCoreError):
        return PlatformError("platform.failed", f"`{ref}`: {_short(str(error))}")
    raise error


def _refused(ref: str, error: exceptions.ClientError) -> HandrailError:
    told = error.response.get("Error", {})
    code, message = str(told.get("Code", "unknown")), _short(str(told.get("Message", "")))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code.startswith(_BUSY) or status >= 500:  # noqa: PLR2004  the server's own fault
        return _passing(f"`{ref}` wants to be asked later ({code})")
    if code.startswith(_UNKNOWN_WHO):
        hint = "aws sts get-caller-identity     must work here"
        return PlatformError(
            "platform.denied", f"`{ref}` takes no such credentials ({code})", hint=hint
        )
    if code.startswith(_DENIED):
        return PlatformError("platform.denied", f"`{ref}` does not allow it: {message or code}")
    return PlatformError("platform.failed", f"`{ref}` refused ({code}): {message}")


def _passing(said: str) -> PlatformError:
    found = PlatformError("platform.unreachable", said, hint="try again")
    found.is_passing = True
    return found


def _short(text: str) -> str:
    return sanitise(text[:_MOST_TOLD])
