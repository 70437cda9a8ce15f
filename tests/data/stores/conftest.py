"""For the tests of stores: the fixtures of `s3_buckets`."""

from s3_buckets import bucket, credentials, moto, serving  # noqa: F401
