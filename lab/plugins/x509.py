"""Keys, requests and certificates of the tls stand-in, in the profile of the official plugin's."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from lab.plugins.common import ProviderError

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Values = Mapping[str, Any]
Parsed = TypeVar("Parsed")
Extension = TypeVar("Extension", bound=x509.ExtensionType)

CURVES: Mapping[str, type[ec.EllipticCurve]] = {
    "P224": ec.SECP224R1,
    "P256": ec.SECP256R1,
    "P384": ec.SECP384R1,
    "P521": ec.SECP521R1,
}

KEY_USAGES = {
    "digital_signature": "digital_signature",
    "content_commitment": "content_commitment",
    "key_encipherment": "key_encipherment",
    "data_encipherment": "data_encipherment",
    "key_agreement": "key_agreement",
    "cert_signing": "key_cert_sign",
    "crl_signing": "crl_sign",
    "encipher_only": "encipher_only",
    "decipher_only": "decipher_only",
}
"""Pulumi's names of key usages, and this library's."""

EXTENDED_KEY_USAGES = {
    "any_extended": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "server_auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client_auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code_signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email_protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "ipsec_end_system": ObjectIdentifier("1.3.6.1.5.5.7.3.5"),
    "ipsec_tunnel": ObjectIdentifier("1.3.6.1.5.5.7.3.6"),
    "ipsec_user": ObjectIdentifier("1.3.6.1.5.5.7.3.7"),
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocsp_signing": ExtendedKeyUsageOID.OCSP_SIGNING,
    "microsoft_server_gated_crypto": ObjectIdentifier("1.3.6.1.4.1.311.10.3.3"),
    "netscape_server_gated_crypto": ObjectIdentifier("2.16.840.1.113730.4.1"),
    "microsoft_commercial_code_signing": ObjectIdentifier("1.3.6.1.4.1.311.2.1.22"),
    "microsoft_kernel_code_signing": ObjectIdentifier("1.3.6.1.4.1.311.61.1.1"),
}

SUBJECT = {
    "country": NameOID.COUNTRY_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "organizationalUnit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "locality": NameOID.LOCALITY_NAME,
    "province": NameOID.STATE_OR_PROVINCE_NAME,
    "streetAddresses": NameOID.STREET_ADDRESS,
    "postalCode": NameOID.POSTAL_CODE,
    "commonName": NameOID.COMMON_NAME,
    "serialNumber": NameOID.SERIAL_NUMBER,
    "emailAddress": NameOID.EMAIL_ADDRESS,
}
"""A subject's fields, in the order in which they are encoded."""


def private_key(values: Values) -> dict[str, str]:
    """A new key in all its forms; a P224 key has no OpenSSH form, which is then empty."""
    algorithm, curve = values["algorithm"], values["ecdsaCurve"]
    key: Key
    if algorithm == "RSA":
        key = _rsa_key(int(values["rsaBits"]))
    elif algorithm == "ECDSA":
        key = ec.generate_private_key(CURVES[curve]())
    else:
        key = ed25519.Ed25519PrivateKey.generate()
    pem, form, plain = serialization.Encoding.PEM, serialization.PrivateFormat, serialization.NoEncryption()
    traditional = form.PKCS8 if algorithm == "ED25519" else form.TraditionalOpenSSL
    public = key.public_key()
    made = {
        "id": _id(_der(public)),
        "privateKeyPem": key.private_bytes(pem, traditional, plain).decode(),
        "privateKeyPemPkcs8": key.private_bytes(pem, form.PKCS8, plain).decode(),
        "publicKeyPem": public.public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo).decode(),
        "privateKeyOpenssh": "",
        "publicKeyOpenssh": "",
        "publicKeyFingerprintMd5": "",
        "publicKeyFingerprintSha256": "",
    }
    if algorithm == "ECDSA" and curve == "P224":
        return made
    line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    blob = base64.b64decode(line.split()[1])
    sha256 = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return made | {
        "privateKeyOpenssh": key.private_bytes(pem, form.OpenSSH, plain).decode(),
        "publicKeyOpenssh": f"{line}\n",
        "publicKeyFingerprintMd5": hashlib.md5(blob).digest().hex(":"),
        "publicKeyFingerprintSha256": f"SHA256:{sha256}",
    }


def _rsa_key(bits: int) -> rsa.RSAPrivateKey:
    try:
        return rsa.generate_private_key(public_exponent=65537, key_size=bits)
    except ValueError as error:
        raise ProviderError(f"rsaBits {bits}: {error}") from error


def certificate_request(values: Values) -> dict[str, str]:
    """A request for `subject` and its other names, signed by `privateKeyPem`."""
    key = _load_key(values, "privateKeyPem")
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(values))
    if names := _alternative_names(values):
        builder = builder.add_extension(names, critical=False)
    request = builder.sign(key, _hash(key))
    return {
        "id": _id(request.public_bytes(serialization.Encoding.DER)),
        "certRequestPem": request.public_bytes(serialization.Encoding.PEM).decode(),
        "keyAlgorithm": _algorithm(key),
    }


def self_signed(values: Values) -> dict[str, str]:
    """A certificate for the public half of `privateKeyPem`, signed by that key."""
    key = _load_key(values, "privateKeyPem")
    subject = _subject(values)
    public = key.public_key()
    made = _certificate(
        values,
        subject=subject,
        names=_alternative_names(values),
        public=public,
        issuer=subject,
        issuer_id=_key_id(public) if values["setAuthorityKeyId"] else None,
        key=key,
    )
    return made | {"keyAlgorithm": _algorithm(key)}


def locally_signed(values: Values) -> dict[str, str]:
    """A certificate for what `certRequestPem` asks for, signed by the CA."""
    request = _parse(values, "certRequestPem", x509.load_pem_x509_csr)
    authority = _parse(values, "caCertPem", x509.load_pem_x509_certificate)
    key = _load_key(values, "caPrivateKeyPem")
    if _der(key.public_key()) != _der(authority.public_key()):
        raise ProviderError("x509: provided PrivateKey doesn't match parent's PublicKey")
    if not request.is_signature_valid:
        raise ProviderError("certRequestPem: its signature is not of its own key")
    made = _certificate(
        values,
        subject=request.subject,
        names=_extension(request, x509.SubjectAlternativeName),
        public=request.public_key(),
        issuer=authority.subject,
        issuer_id=_extension(authority, x509.SubjectKeyIdentifier),
        key=key,
    )
    return made | {"caKeyAlgorithm": _algorithm(key)}


def _certificate(
    values: Values,
    *,
    subject: x509.Name,
    names: x509.SubjectAlternativeName | None,
    public: Any,
    issuer: x509.Name,
    issuer_id: x509.SubjectKeyIdentifier | None,
    key: Key,
) -> dict[str, str]:
    start = datetime.now(UTC)
    end = start + timedelta(hours=values["validityPeriodHours"])
    serial = 1 + secrets.randbelow(2**128 - 1)
    builder = x509.CertificateBuilder(issuer, subject, public, serial, start, end)
    for extension, critical in _extensions(values, public, issuer_id):
        builder = builder.add_extension(extension, critical)
    if names:
        builder = builder.add_extension(names, critical=not list(subject))
    return {
        "id": str(serial),
        "certPem": builder.sign(key, _hash(key)).public_bytes(serialization.Encoding.PEM).decode(),
        "validityStartTime": f"{start:%Y-%m-%dT%H:%M:%S.%fZ}",
        "validityEndTime": f"{end:%Y-%m-%dT%H:%M:%S.%fZ}",
    }


def _extensions(
    values: Values, public: Any, issuer_id: x509.SubjectKeyIdentifier | None
) -> Iterator[tuple[x509.ExtensionType, bool]]:
    """The extensions that follow from the settings, each with whether it is critical."""
    uses = values["allowedUses"]
    usage = {name: pulumi in uses for pulumi, name in KEY_USAGES.items()}
    if any(usage.values()):
        yield x509.KeyUsage(**usage), True
    if extended := [EXTENDED_KEY_USAGES[use] for use in uses if use in EXTENDED_KEY_USAGES]:
        yield x509.ExtendedKeyUsage(extended), False
    is_ca = values["isCaCertificate"]
    length = values.get("maxPathLength", -1)
    yield x509.BasicConstraints(is_ca, int(length) if is_ca and length >= 0 else None), True
    if is_ca or values["setSubjectKeyId"]:
        yield _key_id(public), False
    if issuer_id:
        yield x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), False


def _subject(values: Values) -> x509.Name:
    subject = values.get("subject") or {}
    if unknown := subject.keys() - SUBJECT:
        raise ProviderError(f"subject has no {', '.join(sorted(unknown))}, only {', '.join(SUBJECT)}")
    attributes = []
    for name, oid in SUBJECT.items():
        value = subject.get(name) or []
        for item in value if isinstance(value, list) else [value]:
            try:
                attributes.append(x509.NameAttribute(oid, item))
            except ValueError as error:
                raise ProviderError(f"subject.{name}: {error}") from error
    return x509.Name(attributes)


def _alternative_names(values: Values) -> x509.SubjectAlternativeName | None:
    try:
        names: list[x509.GeneralName] = [
            *(x509.DNSName(name) for name in values.get("dnsNames") or ()),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in values.get("ipAddresses") or ()),
            *(x509.UniformResourceIdentifier(uri) for uri in values.get("uris") or ()),
        ]
    except ValueError as error:
        raise ProviderError(f"dnsNames, ipAddresses, uris: {error}") from error
    return x509.SubjectAlternativeName(names) if names else None


def _extension(
    holder: x509.Certificate | x509.CertificateSigningRequest, kind: type[Extension]
) -> Extension | None:
    try:
        return holder.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _key_id(public: Any) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(public)


def _load_key(values: Values, name: str) -> Key:
    key = _parse(values, name, lambda pem: serialization.load_pem_private_key(pem, password=None))
    if not isinstance(key, Key):
        raise ProviderError(f"{name}: not an RSA, ECDSA or ED25519 key")
    return key


def _parse(values: Values, name: str, parse: Callable[[bytes], Parsed]) -> Parsed:
    """Input `name` as PEM; the error says which input it is and nothing of what is in it."""
    try:
        return parse(values[name].encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ProviderError(f"{name}: failed to decode PEM") from error


def _id(der: bytes) -> str:
    """The official plugin's id; it treats the bytes as text and strips space at both ends."""
    return hashlib.sha1(der.strip()).hexdigest()


def _algorithm(key: Key) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return "RSA"
    return "ECDSA" if isinstance(key, ec.EllipticCurvePrivateKey) else "ED25519"


def _hash(key: Key) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    """The hash of a signature by `key`: none for Ed25519, by the curve for ECDSA, SHA-256 for RSA."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    bits = key.curve.key_size if isinstance(key, ec.EllipticCurvePrivateKey) else 256
    return hashes.SHA256() if bits <= 256 else hashes.SHA384() if bits <= 384 else hashes.SHA512()


def _der(public: Any) -> bytes:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    data: bytes = public.public_bytes(encoding, form)
    return data
