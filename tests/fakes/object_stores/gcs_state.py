"""The state of a fake Google Cloud Storage, and who may do what in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.fakes.object_stores.gcs_auth import Accounts, Caller
from tests.fakes.object_stores.gcs_errors import GoogleError, no_bucket, no_object
from tests.fakes.object_stores.gcs_errors import permission as refused
from tests.fakes.object_stores.objects import Bucket, Upload, Version

READ = ("storage.objects.get", "storage.objects.list")


@dataclass
class State:
    """
    Buckets, callers and unfinished uploads.

    Attributes:
        denied: Pairs of a permission and a prefix of "bucket/key" that nobody may.

        uploads: The resumable uploads, by their secret ids.
    """

    buckets: dict[str, Bucket] = field(default_factory=dict)
    accounts: Accounts = field(default_factory=Accounts)
    denied: set[tuple[str, str]] = field(default_factory=set)
    uploads: dict[str, Upload] = field(default_factory=dict)

    def permit(
        self, caller: Caller | None, permission: str, bucket: str, key: str = ""
    ) -> None:
        """Raise GoogleError if the caller lacks a permission."""
        place = self.buckets.get(bucket)
        resource = f"{bucket}/{key}" if key else bucket
        rules = self.denied | (caller.denied if caller else set())
        public = place is not None and place.public and permission in READ
        if (caller is None and not public) or any(
            one == permission and resource.startswith(prefix) for one, prefix in rules
        ):
            who = caller.email if caller else "Anonymous caller"
            where = "object" if ".objects." in permission else "bucket"
            raise refused(who, permission, where)

    def bucket(self, name: str) -> Bucket:
        """Return a bucket; raise GoogleError if it does not exist."""
        if name not in self.buckets:
            raise no_bucket()
        return self.buckets[name]

    def version(
        self, caller: Caller | None, bucket: str, key: str, generation: str = ""
    ) -> Version:
        """
        Return the live version of an object, or an older one of a versioned bucket.

        Raises:
            GoogleError: It does not exist; who may not list gets 403.
        """
        place = self.bucket(bucket)
        live = place.live(key)
        if generation:
            if not generation.isdigit():
                raise GoogleError(400, details=f"Invalid generation {generation}")
            found = place.version(key, generation=int(generation))
        else:
            found = live
        if found is None or found.deleted:
            self.permit(caller, "storage.objects.list", bucket)
            raise no_object(bucket, key)
        return found
