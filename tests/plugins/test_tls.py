"""The tls stand-in answers as the official plugin did; what is random has the recorded profile."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncssh
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lab.plugins.common import UNKNOWN, EngineLog
from lab.plugins.tls import CERT_REQUEST, LOCALLY_SIGNED, PRIVATE_KEY, SELF_SIGNED, VERSION, TlsProvider
from tests.plugins.replay import ABSENT, Call, Json, ask, recording, replay, serving

RUNS = [
    "t0-preview",
    "t1-create",
    "t2-nochange",
    "t3-sans",
    "t4-bad",
    "t5-short",
    "t6-due",
    "t7-refresh",
    "t8-up-after-refresh",
    "t9-destroy",
]
HASH_ID = r"[0-9a-f]{40}"
SERIAL_ID = r"[0-9]{30,39}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"
IDS = {PRIVATE_KEY: HASH_ID, CERT_REQUEST: HASH_ID, SELF_SIGNED: SERIAL_ID, LOCALLY_SIGNED: SERIAL_ID}
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}

RANDOM = {
    "id": r"[0-9a-f]{30,40}",
    "privateKeyPem.value": r"-----BEGIN ((RSA|EC) )?PRIVATE KEY-----\n.*",
    "privateKeyPemPkcs8.value": r"-----BEGIN PRIVATE KEY-----\n.*",
    "privateKeyOpenssh.value": r"-----BEGIN OPENSSH PRIVATE KEY-----\n.*",
    "publicKeyPem": r"-----BEGIN PUBLIC KEY-----\n.*",
    "publicKeyOpenssh": r"(ssh-rsa|ssh-ed25519|ecdsa-sha2-nistp256) \S+\n",
    "publicKeyFingerprintMd5": r"([0-9a-f]{2}:){15}[0-9a-f]{2}",
    "publicKeyFingerprintSha256": r"SHA256:[A-Za-z0-9+/]{43}",
    "certPem": r"-----BEGIN CERTIFICATE-----\n.*",
    "certRequestPem": r"-----BEGIN CERTIFICATE REQUEST-----\n.*",
    "validityStartTime": TIME,
    "validityEndTime": TIME,
}
"""What a Create makes anew, and the form of it."""


def plugin() -> AbstractAsyncContextManager[Any]:
    return serving(TlsProvider(EngineLog(None)), VERSION)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


async def create(stub: Any, kind: str, **properties: Any) -> Json:
    """The outputs of a Create of a resource inside a component, with secrets unwrapped."""
    urn = f"urn:pulumi:dev::rec::my:index:Component${kind}::it"
    answer = await ask(stub, "Create", {"urn": urn, "properties": properties})
    outputs: Json = answer["response"]["properties"]
    return {key: value["value"] if is_secret(value) else value for key, value in outputs.items()}


async def check(stub: Any, kind: str, **news: Any) -> Json:
    urn = f"urn:pulumi:dev::rec::{kind}::it"
    answer = await ask(stub, "Check", {"urn": urn, "olds": {}, "news": news})
    response: Json = answer["response"]
    return response


async def diff(stub: Any, kind: str, old: Json, new: Json) -> Json:
    urn = f"urn:pulumi:dev::rec::{kind}::it"
    answer = await ask(stub, "Diff", {"urn": urn, "id": "it", "olds": old, "news": new})
    response: Json = answer["response"]
    return response


def is_secret(value: Any) -> bool:
    return isinstance(value, dict) and value.items() >= SECRET.items()


def unexpected(call: Call) -> Iterator[tuple[str, Any, Any]]:
    """The differences that are not in the nature of things."""
    for path, recorded, answered in call.differences():
        name = path.removeprefix("response.").removeprefix("properties.")
        if call.method == "Create" and name in RANDOM:
            right = re.fullmatch(RANDOM[name], answered, re.DOTALL) and profile(recorded) == profile(answered)
        elif call.method == "Diff" and path == "response.detailedDiff":
            # The official plugin leaves the details to the engine.
            right = recorded == ABSENT and sorted(answered) == call.answered["response"]["diffs"]
        else:
            # The SDK's server has no field for this one.
            right = path == "response.supportsAutonamingConfiguration"
        if not right:
            yield path, recorded, answered


def profile(text: str) -> Any:
    """What two runs have in common in a key, a request or a certificate."""
    data = text.encode()
    if text.startswith("-----BEGIN CERTIFICATE REQUEST"):
        request = x509.load_pem_x509_csr(data)
        assert request.is_signature_valid
        return request.subject, extensions(request), request.signature_algorithm_oid, key_kind(request)
    if text.startswith("-----BEGIN CERTIFICATE"):
        certificate = x509.load_pem_x509_certificate(data)
        validity = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        return (
            *(certificate.subject, certificate.issuer, certificate.version, validity),
            *(extensions(certificate), certificate.signature_algorithm_oid, key_kind(certificate)),
        )
    if text.startswith("-----BEGIN PUBLIC"):
        return type(serialization.load_pem_public_key(data))
    if "PRIVATE KEY" in text:
        return text.split("-----")[1]
    return None


def extensions(holder: x509.Certificate | x509.CertificateSigningRequest) -> list[Any]:
    """Extensions in order; an identifier of a key is right if it is that of the holder's own key."""
    found: list[Any] = []
    for extension in holder.extensions:
        value: Any = extension.value
        if isinstance(value, x509.SubjectKeyIdentifier):
            value = value == x509.SubjectKeyIdentifier.from_public_key(holder.public_key())
        elif isinstance(value, x509.AuthorityKeyIdentifier):
            value = len(value.key_identifier or b""), value.authority_cert_issuer
        found.append((extension.oid, extension.critical, value))
    return found


def key_kind(holder: x509.Certificate | x509.CertificateSigningRequest) -> Any:
    return type(holder.public_key()), getattr(holder.public_key(), "key_size", None)


def test_answers_are_the_recorded_ones() -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            # One replay for all runs: later ones use the keys that the first makes.
            calls = [call for name in RUNS for call in recording(f"tls/{name}")]
            for call in await replay(stub, calls):
                assert list(unexpected(call)) == [], (call.method, call.request)
                if call.method == "Create" and "id" in call.answered["response"]:
                    made = call.answered["response"]
                    assert re.fullmatch(IDS[call.type], made["id"])
                    assert made["properties"]["id"] == made["id"]
            assert len(calls) > 150

    run(scenario)


async def authority(stub: Any, **settings: Any) -> tuple[Json, Json]:
    """A CA's key and certificate."""
    key = await create(stub, PRIVATE_KEY, algorithm="ECDSA", ecdsaCurve="P256")
    certificate = await create(
        stub,
        SELF_SIGNED,
        **{
            "privateKeyPem": key["privateKeyPem"],
            "subject": {"commonName": "ca"},
            "allowedUses": ["cert_signing"],
            "isCaCertificate": True,
            "validityPeriodHours": 24,
            **settings,
        },
    )
    return key, certificate


async def leaf(stub: Any, ca: tuple[Json, Json], request: Json, **settings: Any) -> Json:
    """The inputs and outputs of a certificate for `request`."""
    inputs = {
        "caPrivateKeyPem": ca[0]["privateKeyPem"],
        "caCertPem": ca[1]["certPem"],
        "certRequestPem": request["certRequestPem"],
        "allowedUses": ["client_auth", "key_encipherment"],
        "validityPeriodHours": 10,
        **settings,
    }
    return {"inputs": inputs, "outputs": await create(stub, LOCALLY_SIGNED, **inputs)}


def test_a_leaf_is_verified_by_its_ca() -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            ca = await authority(stub, maxPathLength=0, setAuthorityKeyId=True)
            key = await create(stub, PRIVATE_KEY, algorithm="ED25519")
            request = await create(
                stub,
                CERT_REQUEST,
                privateKeyPem=key["privateKeyPem"],
                subject={"commonName": "me", "organization": "system:masters", "streetAddresses": ["a", "b"]},
                dnsNames=["one.example", "*.two.example"],
                ipAddresses=["10.0.0.1", "fd00::1"],
                uris=["spiffe://x/y"],
            )
            made = await leaf(stub, ca, request, setSubjectKeyId=True)
        root = x509.load_pem_x509_certificate(ca[1]["certPem"].encode())
        certificate = x509.load_pem_x509_certificate(made["outputs"]["certPem"].encode())
        certificate.verify_directly_issued_by(root)
        assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
        assert certificate.subject.rfc4514_string() == "CN=me,STREET=b,STREET=a,O=system:masters"
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["one.example", "*.two.example"]
        assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["10.0.0.1", "fd00::1"]
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://x/y"]
        own = x509.SubjectKeyIdentifier.from_public_key(root.public_key())
        for holder in (root, certificate):
            issuer = holder.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
            assert issuer.key_identifier == own.digest
        assert made["outputs"]["caKeyAlgorithm"] == "ECDSA"
        assert request["keyAlgorithm"] == "ED25519"

    run(scenario)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"algorithm": "RSA", "rsaBits": 3072}, "ssh-rsa"),
        ({"algorithm": "ECDSA", "ecdsaCurve": "P256"}, "ecdsa-sha2-nistp256"),
        ({"algorithm": "ECDSA", "ecdsaCurve": "P384"}, "ecdsa-sha2-nistp384"),
        ({"algorithm": "ECDSA", "ecdsaCurve": "P521"}, "ecdsa-sha2-nistp521"),
        ({"algorithm": "ED25519"}, "ssh-ed25519"),
    ],
)
def test_all_forms_are_of_one_key(settings: Json, line: str) -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            key = await create(stub, PRIVATE_KEY, **settings)
        public = asyncssh.import_public_key(key["publicKeyOpenssh"])
        assert key["publicKeyOpenssh"].startswith(f"{line} ")
        for form in ("privateKeyOpenssh", "privateKeyPem", "privateKeyPemPkcs8"):
            assert asyncssh.import_private_key(key[form]).convert_to_public() == public
        assert asyncssh.import_public_key(key["publicKeyPem"]) == public
        assert key["publicKeyFingerprintSha256"] == public.get_fingerprint("sha256")
        assert f"MD5:{key['publicKeyFingerprintMd5']}" == public.get_fingerprint("md5")

    run(scenario)


def test_the_default_curve_has_no_openssh_form() -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            key = await create(stub, PRIVATE_KEY, algorithm="ECDSA")
        assert key["ecdsaCurve"] == "P224"
        assert key["publicKeyOpenssh"] == key["privateKeyOpenssh"] == key["publicKeyFingerprintMd5"] == ""

    run(scenario)


def test_renewal_is_due_inside_the_window_only() -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            ca = await authority(stub)
            key = await create(stub, PRIVATE_KEY, algorithm="ED25519")
            request = await create(stub, CERT_REQUEST, privateKeyPem=key["privateKeyPem"])
            made = await leaf(stub, ca, request, earlyRenewalHours=2)
            inputs, state = made["inputs"], made["outputs"]
            assert state["readyForRenewal"] is False
            assert (await diff(stub, LOCALLY_SIGNED, state, inputs))["changes"] == "DIFF_NONE"

            wider = await diff(stub, LOCALLY_SIGNED, state, inputs | {"earlyRenewalHours": 3})
            assert wider["diffs"] == ["earlyRenewalHours"]
            assert "replaces" not in wider

            later = state | {"validityEndTime": (datetime.now(UTC) + timedelta(hours=1.9)).isoformat()}
            due = await diff(stub, LOCALLY_SIGNED, later, inputs)
            assert due["replaces"] == due["diffs"] == ["readyForRenewal"]
            urn = f"urn:pulumi:dev::rec::{LOCALLY_SIGNED}::it"
            read = await ask(
                stub, "Read", {"urn": urn, "id": state["id"], "properties": later, "inputs": inputs}
            )
            assert read["response"]["properties"]["readyForRenewal"] is True

    run(scenario)


def test_a_longer_window_is_an_update_in_place() -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            _, state = await authority(stub)
            inputs = {key: state[key] for key in ("privateKeyPem", "allowedUses", "validityPeriodHours")}
            news = inputs | {"earlyRenewalHours": 3}
            urn = f"urn:pulumi:dev::rec::{SELF_SIGNED}::it"
            answer = await ask(stub, "Update", {"urn": urn, "id": state["id"], "olds": state, "news": news})
        updated = answer["response"]["properties"]
        assert updated["earlyRenewalHours"] == 3
        assert updated["certPem"] == state["certPem"]
        assert is_secret(updated["privateKeyPem"])

    run(scenario)


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        (PRIVATE_KEY, {"algorithm": "RSA"}, {"algorithm": "ED25519"}),
        (PRIVATE_KEY, {"algorithm": "RSA"}, {"algorithm": "RSA", "rsaBits": 4096}),
        (CERT_REQUEST, {"subject": {"commonName": "a"}}, {"subject": {"commonName": "b"}}),
        (CERT_REQUEST, {"subject": {"commonName": "a"}}, {}),
        (CERT_REQUEST, {"privateKeyPem": "k"}, {"privateKeyPem": UNKNOWN}),
    ],
)
def test_any_other_change_replaces(kind: str, old: Json, new: Json) -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            state = {"ecdsaCurve": "P224", "rsaBits": 2048, **old} if kind == PRIVATE_KEY else old
            answer = await diff(stub, kind, state, new)
        [changed] = answer["replaces"]
        assert answer["diffs"] == [changed]
        assert answer["detailedDiff"] == {changed: {"kind": "UPDATE_REPLACE"}}

    run(scenario)


@pytest.mark.parametrize(
    ("kind", "inputs", "reason"),
    [
        (PRIVATE_KEY, {}, "Missing required argument 'algorithm'. Examine values at 'it.algorithm'."),
        (
            PRIVATE_KEY,
            {"algorithm": "RSA", "bits": 1},
            "'bits' is not one of algorithm, ecdsaCurve, rsaBits.",
        ),
        (
            PRIVATE_KEY,
            {"algorithm": "ECDSA", "ecdsaCurve": "P1"},
            'Attribute ecdsa_curve value must be one of: ["P224"',
        ),
        (
            SELF_SIGNED,
            {"privateKeyPem": "k", "validityPeriodHours": 1, "allowedUses": ["server"]},
            'Attribute allowed_uses value must be one of: ["digital_signature"',
        ),
    ],
)
def test_check_refuses(kind: str, inputs: Json, reason: str) -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            response = await check(stub, kind, **inputs)
        [failure] = response["failures"]
        assert reason in failure["reason"]

    run(scenario)


def test_errors_name_the_input_and_show_nothing_of_it() -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            urn = f"urn:pulumi:dev::rec::{CERT_REQUEST}::it"
            answer = await ask(stub, "Create", {"urn": urn, "properties": {"privateKeyPem": "the-secret"}})
        assert answer["errors"] == ["rpc error: code = Unknown desc = privateKeyPem: failed to decode PEM"]

    run(scenario)


def test_a_key_that_is_not_the_cas_is_refused() -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            ca, other = await authority(stub), await authority(stub)
            request = await create(stub, CERT_REQUEST, privateKeyPem=ca[0]["privateKeyPem"])
            inputs = {
                **(await leaf(stub, ca, request))["inputs"],
                "caPrivateKeyPem": other[0]["privateKeyPem"],
            }
            urn = f"urn:pulumi:dev::rec::{LOCALLY_SIGNED}::it"
            answer = await ask(stub, "Create", {"urn": urn, "properties": inputs})
        assert "provided PrivateKey doesn't match parent's PublicKey" in answer["errors"][0]

    run(scenario)


def test_import_and_unknown_types_are_errors() -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            answer = await ask(stub, "Read", {"urn": f"urn:pulumi:dev::rec::{PRIVATE_KEY}::it", "id": "x"})
            assert "cannot be imported" in answer["errors"][0]
            answer = await ask(stub, "Check", {"urn": "urn:pulumi:dev::rec::tls:index/x:X::it"})
            assert "tls:index/x:X is not in the lab's stand-in" in answer["errors"][0]

    run(scenario)


@pytest.mark.parametrize(
    ("kind", "properties", "error"),
    [
        (PRIVATE_KEY, {"algorithm": "RSA", "rsaBits": 512}, "rsaBits 512: "),
        (CERT_REQUEST, {"subject": {"country": "Nowhere"}}, "subject.country: "),
    ],
)
def test_what_cannot_be_encoded_is_named(kind: str, properties: Json, error: str) -> None:
    async def scenario() -> None:
        async with plugin() as stub:
            key = await create(stub, PRIVATE_KEY, algorithm="ED25519")
            urn = f"urn:pulumi:dev::rec::{kind}::it"
            inputs = {"ecdsaCurve": "P256", "privateKeyPem": key["privateKeyPem"], **properties}
            answer = await ask(stub, "Create", {"urn": urn, "properties": inputs})
        assert f"desc = {error}" in answer["errors"][0]

    run(scenario)
