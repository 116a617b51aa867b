"""A server that speaks S3: moto's, and what it has to be corrected in to answer as S3 does. Run as a program."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from moto.s3.exceptions import NoSuchUpload
from moto.s3.models import S3Backend
from moto.server import main

complete = S3Backend.complete_multipart_upload


@wraps(complete)
def complete_if_there(
    backend: S3Backend, bucket_name: str, multipart_id: str, *args: Any, **kwargs: Any
) -> Any:
    """Answer 404 for an upload that was aborted; moto stumbles over it and answers 500."""
    if multipart_id not in backend.get_bucket(bucket_name).multiparts:
        raise NoSuchUpload(upload_id=multipart_id)
    return complete(backend, bucket_name, multipart_id, *args, **kwargs)


replacement: Callable[..., Any] = complete_if_there
S3Backend.complete_multipart_upload = replacement  # type: ignore[method-assign] -- the correction

if __name__ == "__main__":
    main(sys.argv[1:])
