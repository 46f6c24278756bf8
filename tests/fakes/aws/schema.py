"""
Read requests and write responses by the service models of AWS's own SDK.

A request with an unknown parameter, value or type is refused, as the service does.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from botocore.validate import ParamValidator
from moto.core.parse import PROTOCOL_PARSERS, XFormedDict
from moto.core.serialize import XFormedAttributePicker, get_serializer_class
from moto.core.utils import get_service_model

_SERVICES = {"monitoring": "cloudwatch", "servicequotas": "service-quotas"}
_SCOPE = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request")
_models: dict[str, Any] = {}


class Refusal(Exception):
    """An error response of AWS."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


@dataclass(frozen=True)
class ApiRequest:
    """One request: service, action, region, access key and body."""

    service: str
    action: str
    region: str
    key: str
    body: bytes
    content_type: str

    @property
    def model(self) -> Any:
        """The service's model."""
        if self.service not in _models:
            _models[self.service] = get_service_model(self.service)
        return _models[self.service]

    @property
    def protocol(self) -> str:
        """The protocol of this request."""
        if "cbor" in self.content_type:
            return "smithy-rpc-v2-cbor"
        if "json" in self.content_type:
            return "json"
        return "ec2" if self.service == "ec2" else "query"

    def parameters(self) -> dict[str, Any]:
        """Return the parameters; raise Refusal for one that the service lacks."""
        operation = self.model.operation_model(self.action)
        shape = operation.input_shape
        if shape is None:
            return {}
        if self.protocol in ("ec2", "query"):
            form = dict(parse_qsl(self.body.decode(), keep_blank_values=True))
            used = {"Action", "Version"}
            found = _form(shape, "", form, used, self.protocol)
            unknown = sorted(set(form) - used)
            if unknown:
                raise Refusal(
                    "UnknownParameter", f"The parameter {unknown[0]} is not recognized"
                )
        elif self.protocol == "json":
            found = json.loads(self.body or b"{}")
        else:
            parser: Any = PROTOCOL_PARSERS[self.protocol](operation)
            request = {"method": "POST", "body": self.body, "url_path": ""}
            found = parser.parse(
                {**request, "values": {}, "headers": {}, "url_params": {}}
            )
            if isinstance(found, XFormedDict):
                found = found.original_dict()
        report = ParamValidator().validate(found, shape)
        if report.has_errors():
            raise Refusal("MissingParameter", report.generate_report())
        _enums(shape, found, self.action)
        return dict(found)

    def answer(self, result: object) -> tuple[int, dict[str, str], bytes]:
        """Return the HTTP response for a result: a mapping or an object."""
        serializer = get_serializer_class(self.service, self.protocol)(
            operation_model=self.model.operation_model(self.action),
            value_picker=XFormedAttributePicker(),
        )
        written = serializer.serialize(result)
        body = written["body"]
        raw = body.encode() if isinstance(body, str) else bytes(body)
        return int(written["status_code"]), dict(written["headers"]), raw

    def refusal(self, refusal: Refusal) -> tuple[int, dict[str, str], bytes]:
        """Return the HTTP response for a refusal, in the protocol of the request."""
        text = refusal.message.replace("&", "&amp;").replace("<", "&lt;")
        if self.protocol == "ec2":
            xml = (
                f"<Response><Errors><Error><Code>{refusal.code}</Code>"
                f"<Message>{text}</Message></Error></Errors>"
                "<RequestID>r-1</RequestID></Response>"
            )
            return refusal.status, {"Content-Type": "text/xml"}, xml.encode()
        if self.protocol == "query":
            xml = (
                f"<ErrorResponse><Error><Type>Sender</Type><Code>{refusal.code}</Code>"
                f"<Message>{text}</Message></Error>"
                "<RequestId>r-1</RequestId></ErrorResponse>"
            )
            return refusal.status, {"Content-Type": "text/xml"}, xml.encode()
        code = refusal.code
        if code == "UnauthorizedOperation":
            code = "AccessDeniedException"
        if code == "RequestLimitExceeded":
            code = "ThrottlingException"
        if self.protocol == "json":
            text = json.dumps({"__type": code, "message": refusal.message})
            return refusal.status, {"Content-Type": self.content_type}, text.encode()
        body = b"\xa2" + b"".join(
            map(_cbor, ("__type", f"com.amazonaws#{code}", "message", refusal.message))
        )
        headers = {
            "Content-Type": "application/cbor",
            "smithy-protocol": "rpc-v2-cbor",
            "x-amzn-query-error": f"{code};Sender",
        }
        return refusal.status, headers, body


def read(environ: Mapping[str, Any]) -> ApiRequest:
    """Return the API request of an HTTP request."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    if scope is None:
        raise AssertionError("a request has no signature")
    key, region, service = scope.groups()
    path, target = environ.get("PATH_INFO", ""), environ.get("HTTP_X_AMZ_TARGET", "")
    if "/operation/" in path:
        action = path.rpartition("/")[2]
    elif target:
        action = target.rpartition(".")[2]
    else:
        action = dict(parse_qsl(body.decode()))["Action"]
    return ApiRequest(
        service=_SERVICES.get(service, service),
        action=action,
        region=region,
        key=key,
        body=body,
        content_type=environ.get("CONTENT_TYPE", ""),
    )


def _form(
    shape: Any, prefix: str, form: Mapping[str, str], used: set[str], protocol: str
) -> Any:
    """Read one value of a form, as the ec2 and query protocols write it."""
    if shape.type_name == "structure":
        found = {}
        for name, member in shape.members.items():
            key = _name(name, member, protocol)
            full = f"{prefix}.{key}" if prefix else key
            if full in form or any(one.startswith(f"{full}.") for one in form):
                found[name] = _form(member, full, form, used, protocol)
        return found
    if shape.type_name == "list":
        stem = prefix if protocol == "ec2" else f"{prefix}.member"
        values: list[Any] = []
        while any(
            one == f"{stem}.{len(values) + 1}"
            or one.startswith(f"{stem}.{len(values) + 1}.")
            for one in form
        ):
            here = f"{stem}.{len(values) + 1}"
            values.append(_form(shape.member, here, form, used, protocol))
        return values
    used.add(prefix)
    return _scalar(shape.type_name, form.get(prefix, ""), prefix)


def _name(name: str, member: Any, protocol: str) -> str:
    serialization = member.serialization
    if protocol == "ec2":
        if "queryName" in serialization:
            return str(serialization["queryName"])
        if "name" in serialization:
            word = str(serialization["name"])
            return word[0].upper() + word[1:]
        return name
    return str(serialization.get("name", name))


def _scalar(kind: str, text: str, where: str) -> Any:
    try:
        if kind == "boolean":
            return {"true": True, "false": False}[text]
        if kind in ("integer", "long"):
            return int(text)
        if kind in ("float", "double"):
            return float(text)
        if kind == "blob":
            return base64.b64decode(text, validate=True)
    except (ValueError, KeyError):
        raise Refusal(
            "InvalidParameterValue", f"Invalid value '{text}' for {where}"
        ) from None
    return text


def _enums(shape: Any, value: Any, where: str) -> None:
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            if name in value:
                _enums(member, value[name], name)
    elif shape.type_name == "list":
        for one in value:
            _enums(shape.member, one, where)
    elif getattr(shape, "enum", None) and value not in shape.enum:
        raise Refusal("InvalidParameterValue", f"Invalid value '{value}' for {where}.")


def _cbor(text: str) -> bytes:
    raw = text.encode()
    if len(raw) < 24:
        return bytes([0x60 + len(raw)]) + raw
    if len(raw) < 256:
        return bytes([0x78, len(raw)]) + raw
    return b"\x79" + len(raw).to_bytes(2, "big") + raw
