"""A server that speaks S3: moto's, and what it has to be corrected in to answer as S3 does. Run as a program."""

import sys
from functools import wraps
from typing import Any

from moto.s3.exceptions import NoSuchUpload
from moto.s3.models import S3Backend
from moto.server import main


def _only_if_there(name: str) -> None:
    """Let a method answer 404 for an upload that was aborted; moto stumbles over it and answers 500."""
    original = getattr(S3Backend, name)

    @wraps(original)
    def checked(backend: S3Backend, bucket_name: str, multipart_id: str, *args: Any, **kwargs: Any) -> Any:
        if multipart_id not in backend.get_bucket(bucket_name).multiparts:
            raise NoSuchUpload(upload_id=multipart_id)
        return original(backend, bucket_name, multipart_id, *args, **kwargs)

    setattr(S3Backend, name, checked)


for _name in ("upload_part", "complete_multipart_upload"):
    _only_if_there(_name)

if __name__ == "__main__":
    main(sys.argv[1:])
