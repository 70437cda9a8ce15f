"""For the tests of training from a bucket: the small S3 server."""

from s3_buckets import credentials, serving  # noqa: F401
