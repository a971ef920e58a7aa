"""Errors of the config of components: flags, images, etcd and its backups."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.raw_configs import LEFT_OUT, Raw
from tests.unit.wrong_configs import (
    URL,
    WRONG,
    case,
    check,
    flag_case,
    s3_case,
)

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize(
    WRONG,
    [
        # Flags
        flag_case("--v", "4", "without dashes in front"),
        flag_case("-v", "4", "without dashes in front"),
        flag_case("v=4", "4", "without a value"),
        flag_case("permit_port_sharing", "false", "without dashes in front"),
        flag_case("Audit", "x", "for example audit-log-maxage"),
        case("flags kube-scheduler v", ["4"], "write the flag's value as text", shown="(a list)"),
        case("flags kube-scheduler v", None, "write the flag's value as text", shown="(not set)"),
        case("flags kube-scheduler", "v=4", "write a map of keys", shown="(a single value)"),
        case(
            "flags etcd",
            {},
            "known are kube-apiserver, kube-controller-manager, kube-scheduler",
            shown="etcd",
        ),
        case("flags apiserver", {}, "did you mean kube-apiserver?", shown="apiserver"),
        # Images
        *(
            case(
                "images coredns",
                image,
                "use an image reference with a tag or a digest",
                shown=f'"{image[:80]}',
            )
            for image in (
                *("", "coredns", "a/b", "a:b:c", "a:", "A/b:1", "https://a/b:1", "a b:1", "a/b@sha256:12"),
                *(":1", "a//b:1", "-a/b:1", "a/b:1\u0660", "localhost:/a:1"),
                *("a:99999/b:1", "a.example:0/b:1", f"a:{'9' * 5000}/b:1"),
            )
        ),
        case("images coredns", 7, "in quotes, for example", shown="7"),
        case("images etcd", "a:1", "known are kube-apiserver, kube-controller", shown="etcd"),
        case("images kubeProxy", "a:1", "did you mean kube-proxy?", shown="kubeProxy"),
        # Backups
        case("backup interval", "4m59s", "use at least 5m"),
        case("backup interval", "6 hours", "for example 6h, 90m or 1d12h"),
        case("backup interval", "", "for example 6h, 90m or 1d12h", shown='""'),
        case("backup interval", "\uff15m", "for example 6h, 90m or 1d12h"),
        case("backup interval", "\u0665m", "for example 6h, 90m or 1d12h"),
        case("backup interval", 6, "in quotes"),
        case("backup maxSize", "1023Mi", "use 1Gi to 10Ti"),
        case("backup maxSize", "10GB", "for example 512Mi or 2Gi"),
        case("etcd quota", "63Mi", "use 64Mi to 8Gi"),
        case("etcd quota", "9Gi", "use 64Mi to 8Gi"),
        case("etcd quota", "2147483648", "for example 512Mi or 2Gi"),
        case("etcd quota", 2147483648, "in quotes"),
        case("backup keep", 0, "use a whole number from 1 to 1000"),
        case("backup keep", "all", "use a whole number from 1 to 1000"),
        case("backup generation", -1, "use a whole number from 0 to 1000000"),
        case("backup s3", "s3://backups", "write a map of keys", shown="(a single value)"),
        s3_case("endpoint", LEFT_OUT, "required, for example"),
        s3_case("endpoint", "s3.example.com", URL),
        s3_case("endpoint", "https://10.3.0.7:9000", "lies in kubepivot:network.services", shown="10.3.0.7"),
        s3_case("bucket", "My_Bucket", "use 3 to 63 lower-case letters"),
        s3_case("bucket", "s3://backups", "use 3 to 63 lower-case letters"),
        s3_case("prefix", "/kubernetes", "with / between but not around them"),
        s3_case("prefix", "a/../b", "with / between but not around them"),
        s3_case("region", "eu-central-1\nX=y", "use the region's name", shown="(secret)"),
        s3_case("region", "", "use the region's name", shown='""'),
        s3_case("accessKey", LEFT_OUT, "required, for example"),
        s3_case("secretKey", "hunter2\n", "without spaces and line breaks", shown="(secret)"),
        s3_case("secretKey", "", "without spaces and line breaks", shown="(secret)"),
        s3_case("encryptionKey", "hunter2", "use at least 20 letters", shown="(secret)"),
        s3_case("secret_key", "hunter2", "did you mean secretKey?", shown="secret_key"),
    ],
)
def test_an_error_names_key_value_and_mend(
    base: Callable[[], Raw], path: str, value: object, key: str, shown: str, mend: str
) -> None:
    check(base, path, value, key, shown, mend)
