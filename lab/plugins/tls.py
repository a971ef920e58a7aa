"""Stand-in for Pulumi's `tls` plugin: private keys, certificate requests and certificates.

Types, defaults, ids, replacements and early renewal are those of the official plugin 5.3.0. Not here: the
functions (getPublicKey, getCertificate) and the provider's `proxy`, which serves only these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.provider import (
    CheckFailure,
    CheckRequest,
    CheckResponse,
    ConfigureRequest,
    ConfigureResponse,
    CreateRequest,
    CreateResponse,
    DeleteRequest,
    DiffRequest,
    DiffResponse,
    GetSchemaRequest,
    GetSchemaResponse,
    PropertyDiff,
    PropertyDiffKind,
    Provider,
    ReadRequest,
    ReadResponse,
    UpdateRequest,
    UpdateResponse,
)

from lab.plugins import x509
from lab.plugins.common import (
    UNKNOWN,
    EngineLog,
    ProviderError,
    has_unknown,
    plain,
    property_value,
    resource_type,
    serve,
)

VERSION = "5.3.0"
SECRETS = ("privateKeyPem", "privateKeyPemPkcs8", "privateKeyOpenssh", "caPrivateKeyPem")
IN_PLACE = "earlyRenewalHours"
"""The one input whose change does not replace."""

Properties = dict[str, PropertyValue]
Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ResourceType:
    """What can be set, what is filled in (`defaults`), what is known only once it is made (`computed`)."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    computed: tuple[str, ...]
    make: Callable[[Values], dict[str, str]]
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[str, ...]:
        """All that can be set."""
        return (*self.required, *self.optional, *self.defaults)


PRIVATE_KEY = "tls:index/privateKey:PrivateKey"
CERT_REQUEST = "tls:index/certRequest:CertRequest"
SELF_SIGNED = "tls:index/selfSignedCert:SelfSignedCert"
LOCALLY_SIGNED = "tls:index/locallySignedCert:LocallySignedCert"

_SUBJECT = ("subject", "dnsNames", "ipAddresses", "uris")
_CERTIFICATE = ("certPem", "validityStartTime", "validityEndTime")
_DEFAULTS = {IN_PLACE: 0, "isCaCertificate": False, "setSubjectKeyId": False}
_USES = {"allowedUses": (*x509.KEY_USAGES, *x509.EXTENDED_KEY_USAGES)}

TYPES = {
    PRIVATE_KEY: ResourceType(
        required=("algorithm",),
        defaults={"ecdsaCurve": "P224", "rsaBits": 2048},
        computed=(
            *("privateKeyPem", "privateKeyPemPkcs8", "privateKeyOpenssh", "publicKeyPem", "publicKeyOpenssh"),
            *("publicKeyFingerprintMd5", "publicKeyFingerprintSha256"),
        ),
        make=x509.private_key,
        choices={"algorithm": ("RSA", "ECDSA", "ED25519"), "ecdsaCurve": tuple(x509.CURVES)},
    ),
    CERT_REQUEST: ResourceType(
        required=("privateKeyPem",),
        optional=_SUBJECT,
        computed=("certRequestPem", "keyAlgorithm"),
        make=x509.certificate_request,
    ),
    SELF_SIGNED: ResourceType(
        required=("privateKeyPem", "allowedUses", "validityPeriodHours"),
        optional=(*_SUBJECT, "maxPathLength"),
        defaults=_DEFAULTS | {"setAuthorityKeyId": False},
        computed=(*_CERTIFICATE, "keyAlgorithm"),
        make=x509.self_signed,
        choices=_USES,
    ),
    LOCALLY_SIGNED: ResourceType(
        required=("caCertPem", "caPrivateKeyPem", "certRequestPem", "allowedUses", "validityPeriodHours"),
        optional=("maxPathLength",),
        defaults=_DEFAULTS,
        computed=(*_CERTIFICATE, "caKeyAlgorithm"),
        make=x509.locally_signed,
        choices=_USES,
    ),
}


class TlsProvider(Provider):
    """Makes keys, requests and certificates; Pulumi's state is the only place where they are kept."""

    def __init__(self, log: EngineLog) -> None:
        self._log = log

    async def get_schema(self, request: GetSchemaRequest) -> GetSchemaResponse:
        """The package's name and version: the types are in the SDK."""
        return GetSchemaResponse(f'{{"name": "tls", "version": "{VERSION}"}}')

    async def check_config(self, request: CheckRequest) -> CheckResponse:
        """The provider has no settings here."""
        unknown = sorted(request.new_inputs.keys() - {"version", "pluginDownloadURL"})
        return CheckResponse(
            inputs=request.new_inputs,
            failures=[CheckFailure(key, f"'{key}' is not in the lab's stand-in for tls") for key in unknown],
        )

    async def configure(self, request: ConfigureRequest) -> ConfigureResponse:
        """Like the official plugin: secrets are asked for in plain, and marked in the answers."""
        return ConfigureResponse(accept_secrets=False, supports_preview=True, accept_resources=True)

    async def check(self, request: CheckRequest) -> CheckResponse:
        """Complain about inputs that are wrong and mark private keys as secret."""
        token = resource_type(request.urn)
        kind = TYPES.get(token)
        if kind is None:
            raise ProviderError(
                f"{token} is not in the lab's stand-in for the tls plugin, which has "
                f"{', '.join(TYPES)}: install the official plugin"
            )
        inputs = {key: value for key, value in request.new_inputs.items() if value.value is not None}
        failures = [CheckFailure("", reason) for reason in _failures(kind, inputs, request.name)]
        for key in inputs.keys() & SECRETS:
            inputs[key] = inputs[key].with_secret(True)
        return CheckResponse(inputs=inputs, failures=failures)

    async def diff(self, request: DiffRequest) -> DiffResponse:
        """Any change replaces but that of `earlyRenewalHours`; so does being due for renewal."""
        kind = TYPES[resource_type(request.urn)]
        old = _values(request.old_state)
        new = _planned(kind, _values(request.new_inputs))
        changed = {key for key in kind.inputs if old.get(key) != new.get(key)}
        replaces = changed - {IN_PLACE}
        if "readyForRenewal" in new:
            due = _is_due(old["validityEndTime"], new[IN_PLACE])
            if due or old.get("readyForRenewal") != new["readyForRenewal"]:
                changed.add("readyForRenewal")
            if due:
                replaces.add("readyForRenewal")
        kinds = {True: PropertyDiffKind.UPDATE_REPLACE, False: PropertyDiffKind.UPDATE}
        return DiffResponse(
            changes=bool(changed),
            replaces=sorted(replaces),
            diffs=sorted(changed),
            detailed_diff={key: PropertyDiff(kinds[key in replaces], False) for key in changed},
        )

    async def create(self, request: CreateRequest) -> CreateResponse:
        """Make the key, request or certificate; in a preview what would be made is unknown."""
        kind = TYPES[resource_type(request.urn)]
        values = _planned(kind, _values(request.properties))
        if request.preview:
            unknown = dict.fromkeys(("id", *kind.computed), UNKNOWN)
            if "maxPathLength" in kind.optional:
                unknown["maxPathLength"] = values.get("maxPathLength", UNKNOWN)
            return CreateResponse(properties=_properties(values | unknown))
        made = await asyncio.to_thread(kind.make, values)
        return CreateResponse(resource_id=made["id"], properties=_properties(values | made))

    async def update(self, request: UpdateRequest) -> UpdateResponse:
        """Take the new `earlyRenewalHours`: nothing else is ever updated."""
        planned = _planned(TYPES[resource_type(request.urn)], _values(request.news))
        return UpdateResponse(_properties(_values(request.olds) | planned))

    async def read(self, request: ReadRequest) -> ReadResponse:
        """What is in the state, `readyForRenewal` as of now; there is nothing to import from."""
        values = _values(request.properties)
        if not values:
            raise ProviderError(f"{request.urn} cannot be imported: it is nowhere but in Pulumi's state")
        if "validityEndTime" in values and _is_due(values["validityEndTime"], values[IN_PLACE]):
            values["readyForRenewal"] = True
        return ReadResponse(
            resource_id=request.resource_id,
            properties=request.properties | _properties(values),
            inputs=_properties(_values(request.inputs)),
        )

    async def delete(self, request: DeleteRequest) -> None:
        """Nothing is left to delete."""


def _planned(kind: ResourceType, inputs: Values) -> Values:
    """`inputs` with defaults, and whether a certificate made of them is due for renewal at once."""
    values = {**kind.defaults, **inputs}
    if IN_PLACE in values:
        validity, early = values["validityPeriodHours"], values[IN_PLACE]
        known = UNKNOWN not in (validity, early)
        values["readyForRenewal"] = known and (validity == 0 or 0 < early >= validity)
    return values


def _is_due(end: str, early_hours: Any) -> bool:
    if early_hours == UNKNOWN:
        return False
    return datetime.now(UTC) >= datetime.fromisoformat(end) - timedelta(hours=early_hours)


def _failures(kind: ResourceType, inputs: Properties, name: str) -> Iterator[str]:
    """What is wrong with `inputs`, in the words of the official plugin where they are known."""
    for key in kind.required:
        if key not in inputs:
            yield f"Missing required argument '{key}'. Examine values at '{name}.{key}'."
    for key, value in inputs.items():
        if key not in kind.inputs:
            yield f"'{key}' is not one of {', '.join(kind.inputs)}. Examine values at '{name}.{key}'."
        if key not in kind.choices or has_unknown(value):
            continue
        given = plain(value)
        for item in given if isinstance(given, list) else [given]:
            if item not in kind.choices[key]:
                choices = " ".join(f'"{choice}"' for choice in kind.choices[key])
                yield (
                    f"Invalid Attribute Value Match. Attribute {_snake(key)} value must be one of: "
                    f"[{choices}], got: \"{item}\". Examine values at '{name}.{key}'."
                )


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _values(properties: Mapping[str, PropertyValue]) -> Values:
    """Plain values, without the notes (`__…`) that the official plugin leaves in a state."""
    return {key: plain(value) for key, value in properties.items() if not key.startswith("__")}


def _properties(values: Values) -> Properties:
    return {
        key: property_value(value, secret=key in SECRETS and value != UNKNOWN)
        for key, value in values.items()
    }


if __name__ == "__main__":
    serve(TlsProvider, VERSION)
