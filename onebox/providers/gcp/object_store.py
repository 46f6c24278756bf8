"""List the objects of Google Cloud Storage, and sign links to them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from onebox.agent.downloads.identity import BOX_IDENTITY
from onebox.errors import InputError, NotAllowed, OneboxError, ProviderError
from onebox.providers.gcp import credentials, errors, sdk
from onebox.providers.gcp.settings import GCPSettings
from onebox.providers.kernel.clock import ServerClock, epoch_seconds
from onebox.providers.kernel.errors import Unanswered
from onebox.providers.kernel.retry import Retry
from onebox.providers.object_stores import (
    LINK_SECONDS,
    Link,
    ObjectStore,
    StoredObject,
)
from onebox.settings.data_sources import DataSource
from onebox.settings.fields import ProviderTable

_PUBLIC = "https://storage.googleapis.com"
_FIELDS = "name,size,generation,md5Hash,updated"
_TIMEOUT = 30.0
_PERMISSIONS = (
    "storage.objects.list and storage.objects.get (roles/storage.objectViewer)"
)


class GoogleStorage(ObjectStore):
    """
    Google Cloud Storage, with the application-default credentials.

    If these cannot sign links, such as a user's own login, a box with a service account
    reads the objects as that account.
    """

    def __init__(
        self, settings: ProviderTable | None = None, *, own_box: bool = False
    ) -> None:
        super().__init__(settings, own_box=own_box)
        sdk.require()
        table = cast(GCPSettings, settings)
        self._endpoint = (table.storage_endpoint or _PUBLIC).rstrip("/")
        self._clock = ServerClock(time.time)
        self._retry = Retry()

    def find(self, source: DataSource) -> Iterator[list[StoredObject]]:
        """See `ObjectStore.find`."""
        base = f"/storage/v1/b/{quote(source.bucket, safe='')}/o"
        if not source.is_folder:
            path = f"{base}/{quote(source.key, safe='')}"
            yield [_listed(self._get(source, path, {"fields": _FIELDS}))]
            return
        words = {
            "prefix": source.key,
            "maxResults": "1000",
            "fields": f"nextPageToken,items({_FIELDS})",
        }
        while True:
            answer = self._get(source, base, words)
            yield [_listed(one) for one in answer.get("items", ())]
            if not answer.get("nextPageToken"):
                return
            words["pageToken"] = answer["nextPageToken"]

    def link(self, source: DataSource, found: StoredObject) -> Link | None:
        """See `ObjectStore.link`."""
        path = f"/{source.bucket}/{quote(found.key, safe='/~')}"
        # Without this header Cloud Storage unpacks objects that are stored with gzip.
        headers = {"Accept-Encoding": "gzip"}
        if self._reads_as_box:
            url = f"{self._endpoint}{path}?generation={found.version}"
            headers["Authorization"] = BOX_IDENTITY
        else:
            url = self._signed(path, {"generation": found.version})
        return Link(url, headers, md5=found.md5)

    @cached_property
    def _credentials(self) -> Any:
        return credentials.find().credentials

    @cached_property
    def _session(self) -> Any:
        return sdk.session(self._credentials)

    @cached_property
    def _email(self) -> str:
        """The account whose key signs, "" if these credentials cannot sign."""
        found = self._credentials
        can_sign = hasattr(found, "sign_bytes")
        return str(getattr(found, "signer_email", "") or "") if can_sign else ""

    @property
    def _reads_as_box(self) -> bool:
        table = cast(GCPSettings, self._settings)
        return self._own_box and bool(table.service_account) and not self._email

    def _signed(self, path: str, words: Mapping[str, str]) -> str:
        """Return a link, signed as Google's "V4 signing process" describes."""
        signer, email = self._credentials, self._email
        if not email:
            raise NotAllowed(
                "your own Google login cannot sign links for the box",
                next="set [gcp] service_account, as which boxes of Google Cloud read; "
                "or: gcloud auth application-default login "
                "--impersonate-service-account=ACCOUNT",
            )
        now = datetime.fromtimestamp(self._clock(), timezone.utc)
        day, host = now.strftime("%Y%m%d"), urlsplit(self._endpoint).netloc
        scope = f"{day}/auto/storage/goog4_request"
        moment = now.strftime("%Y%m%dT%H%M%SZ")
        query = urlencode(
            sorted(
                {
                    "X-Goog-Algorithm": "GOOG4-RSA-SHA256",
                    "X-Goog-Credential": f"{email}/{scope}",
                    "X-Goog-Date": moment,
                    "X-Goog-Expires": str(LINK_SECONDS),
                    "X-Goog-SignedHeaders": "host",
                    **words,
                }.items()
            ),
            quote_via=quote,
            safe="~",
        )
        canonical = f"GET\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"GOOG4-RSA-SHA256\n{moment}\n{scope}\n{digest}"
        try:
            signature = binascii.hexlify(signer.sign_bytes(text.encode())).decode()
        except sdk.failures() as error:
            raise NotAllowed(
                f"Google does not sign links with {email}: {error}",
                next="allow iam.serviceAccounts.signBlob on that account",
            ) from error
        return f"{self._endpoint}{path}?{query}&X-Goog-Signature={signature}"

    def _get(
        self, source: DataSource, path: str, words: Mapping[str, str]
    ) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = self._retry.call(
            lambda: self._once(source, path, words)
        )
        return answer

    def _once(
        self, source: DataSource, path: str, words: Mapping[str, str]
    ) -> Mapping[str, Any]:
        try:
            response = self._session.get(
                self._endpoint + path, params=words, timeout=_TIMEOUT
            )
        except sdk.failures() as error:
            raise _no_answer(error) from error
        self._clock.correct(response.headers.get("Date"))
        status = response.status_code
        if status == 404:
            raise InputError(
                f"{source.shown} does not exist, or these Google credentials may not "
                "see it",
                next="gcloud storage ls, or correct [push] data",
            )
        if status in (401, 403):
            raise NotAllowed(
                f"{source.shown}: these Google credentials may not read it",
                next=f"allow {_PERMISSIONS}",
            )
        if status == 429 or status >= 500:
            raise Unanswered(f"Cloud Storage answers with HTTP {status}", next="later")
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if status != 200 or not isinstance(answer, dict):
            raise ProviderError(
                f"{source.shown}: Cloud Storage answers with HTTP {status}"
            )
        return answer


def _no_answer(error: Exception) -> OneboxError:
    if type(error).__module__.startswith("google.auth"):
        return errors.no_credentials(str(error))
    return Unanswered(
        f"Cloud Storage cannot be reached: {type(error).__name__}",
        next="try again when this machine has a network",
    )


def _listed(found: Mapping[str, Any]) -> StoredObject:
    md5 = str(found.get("md5Hash") or "")
    return StoredObject(
        key=str(found["name"]),
        size=int(found.get("size", 0)),
        version=str(found["generation"]),
        modified=epoch_seconds(found.get("updated")),
        md5=base64.b64decode(md5).hex() if md5 else "",
    )
