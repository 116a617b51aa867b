"""Errors of an object store, translated to the exceptions of the operating system."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import ClientError as TransferError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    HTTPClientError,
    ReadTimeoutError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError
from fsspec.exceptions import FSTimeoutError
from s3fs.errors import translate_boto_error
from s3fs.utils import FileExpired

from app.storage.tree import StoreMisconfigured

_MISCONFIGURED = {"NoSuchBucket", "InvalidBucketName", "AuthorizationHeaderMalformed", "PermanentRedirect"}
"""S3 codes that s3fs translates to a milder exception; a missing bucket must never look like an empty one."""

_REVOKED = {"InvalidToken", "ExpiredToken", "TokenRefreshRequired", "ObjectLocked"}
"""S3 codes for missing permission that s3fs does not know."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise only OSErrors, whose class shows whether another attempt may help.

    PermissionError and StoreMisconfigured are permanent. No message contains a secret.
    """
    try:
        yield
    except (ConnectTimeoutError, ReadTimeoutError, FSTimeoutError) as error:
        raise TimeoutError("the object store does not answer") from error
    except (
        NoConnection,
        HTTPClientError,
        TransferError,
        CredentialRetrievalError,
        TokenRetrievalError,
    ) as error:
        raise ConnectionError(f"no answer from the object store ({type(error).__name__})") from error
    except ResponseParserError as error:
        raise ConnectionError("the object store's answer was cut off or is not its own") from error
    except (BotoCoreError, ValueError) as error:
        raise StoreMisconfigured(f"the object store cannot be used ({error})") from error
    except FileExpired as error:
        raise OSError("the file was replaced while it was read") from error
    except OSError as error:  # Last: some errors of botocore are OSErrors that name the endpoint.
        if not isinstance(error.__cause__, ClientError):
            raise
        raise _plain(error, error.__cause__) from error


def _plain(error: OSError, answer: ClientError) -> OSError:
    code = answer.response["Error"].get("Code", "")
    text = f"{code}: {error.strerror or error}"
    if code in _REVOKED or answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 401:
        return PermissionError(text)
    if code in _MISCONFIGURED:
        return StoreMisconfigured(text)
    plain = type(error)(text)
    plain.errno = error.errno
    return plain


def deletion_error(path: str, failure: dict[str, Any]) -> OSError:
    """The exception for one entry in the errors of `delete_objects`, as if the path had been deleted by itself."""
    body = {"Error": {"Code": failure.get("Code", ""), "Message": failure.get("Message", "")}}
    answer = ClientError(body, "DeleteObjects")
    error = _plain(translate_boto_error(answer), answer)
    error.args = (f"{error} ({path})",)
    return error
