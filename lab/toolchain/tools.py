"""What the lab can make ready: each bundle's binaries, its official download and its build. Data only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from lab import pins

ARCHITECTURE = pins.architecture()


@dataclass(frozen=True, kw_only=True)
class Build:
    """How `go build` makes one binary. `module` is a directory of lab/toolchain."""

    module: str
    package: str
    variables: tuple[tuple[str, str], ...] = ()  # Go variables that the linker sets
    cgo: bool = False


@dataclass(frozen=True, kw_only=True)
class Official:
    """One file of an official site: an archive, or the binary itself. The checksum file has SHA-256 sums."""

    url: str
    checksums: str

    @property
    def is_archive(self) -> bool:
        """Whether the binaries have to be unpacked."""
        return self.url.endswith((".tar.gz", ".tgz"))


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Binaries that are published together. Without `official` they are always built.

    `installed` names the command whose answer tells the installed version.
    """

    name: str
    version: str
    builds: dict[str, Build]
    # Files that are copied out of a module's source: {name: (directory of lab/toolchain, Go module, path)}.
    scripts: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    official: Official | None = None
    installed: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The name of the bundle in the cache: changes with anything that changes its content."""
        recipe = repr((self.builds, self.scripts, self.official))
        modules = "".join(pins.module_digest(module) for module in sorted(self.modules))
        return f"{self.name}-{self.version}-{hashlib.sha256((recipe + modules).encode()).hexdigest()[:12]}"

    @property
    def modules(self) -> set[str]:
        """The directories of lab/toolchain that it is built from."""
        return {build.module for build in self.builds.values()} | {
            script[0] for script in self.scripts.values()
        }

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all that is ready when the bundle is."""
        return (*self.builds, *self.scripts)


_KUBERNETES_VERSION = "k8s.io/component-base/version"
_GITHUB = "https://github.com"


def _kubernetes(name: str, version: str) -> Bundle:
    major, minor, _ = version.split(".")
    url = f"https://dl.k8s.io/v{version}/bin/linux/{ARCHITECTURE}/{name}"
    return Bundle(
        name=name,
        version=version,
        official=Official(url=url, checksums=f"{url}.sha256"),
        installed=("kubectl", "version", "--client") if name == "kubectl" else (),
        builds={
            name: Build(
                module=f"kubernetes/{version}",
                package=f"k8s.io/kubernetes/cmd/{name}",
                variables=(
                    (f"{_KUBERNETES_VERSION}.gitVersion", f"v{version}"),
                    (f"{_KUBERNETES_VERSION}.gitMajor", major),
                    (f"{_KUBERNETES_VERSION}.gitMinor", minor),
                    (f"{_KUBERNETES_VERSION}.gitTreeState", "clean"),
                ),
            )
        },
    )


def _release(repository: str, tag: str, file: str, checksums: str) -> Official:
    base = f"{_GITHUB}/{repository}/releases/download/{tag}"
    return Official(url=f"{base}/{file}", checksums=f"{base}/{checksums}")


def _pulumi() -> Bundle:
    platform = {"amd64": "x64"}.get(ARCHITECTURE, ARCHITECTURE)
    checksums = f"{_GITHUB}/pulumi/pulumi/releases/download/v{pins.PULUMI}/pulumi-{pins.PULUMI}-checksums.txt"
    return Bundle(
        name="pulumi",
        version=pins.PULUMI,
        official=Official(
            url=f"https://get.pulumi.com/releases/sdk/pulumi-v{pins.PULUMI}-linux-{platform}.tar.gz",
            checksums=checksums,
        ),
        installed=("pulumi", "version"),
        builds={
            "pulumi": Build(
                module="pulumi",
                package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
                variables=(("github.com/pulumi/pulumi/sdk/v3/go/common/version.Version", f"v{pins.PULUMI}"),),
            ),
            "pulumi-language-python": Build(
                module="pulumi-language-python",
                package="github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python",
            ),
        },
        scripts={
            "pulumi-language-python-exec": (
                "pulumi",
                "github.com/pulumi/pulumi/sdk/v3",
                "python/cmd/pulumi-language-python-exec",
            )
        },
    )


def _etcd(version: str) -> Bundle:
    tag = f"v{version}"
    packages = {"etcd": "server", "etcdctl": "etcdctl", "etcdutl": "etcdutl"}
    return Bundle(
        name="etcd",
        version=version,
        official=_release("etcd-io/etcd", tag, f"etcd-{tag}-linux-{ARCHITECTURE}.tar.gz", "SHA256SUMS"),
        builds={
            name: Build(module=f"etcd/{version}", package=f"go.etcd.io/etcd/{path}/v3")
            for name, path in packages.items()
        },
    )


def _containerd() -> Bundle:
    file = f"containerd-{pins.CONTAINERD}-linux-{ARCHITECTURE}.tar.gz"
    module = "github.com/containerd/containerd/v2"
    return Bundle(
        name="containerd",
        version=pins.CONTAINERD,
        official=_release("containerd/containerd", f"v{pins.CONTAINERD}", file, f"{file}.sha256sum"),
        builds={
            name: Build(
                module="containerd",
                package=f"{module}/cmd/{name}",
                variables=((f"{module}/version.Version", f"v{pins.CONTAINERD}"),),
            )
            for name in ("containerd", "containerd-shim-runc-v2", "ctr")
        },
    )


_CNI = "github.com/containernetworking/plugins"


def _cni_plugin(module: str, path: str, version: str) -> Build:
    return Build(
        module=module,
        package=f"{_CNI}/plugins/{path}",
        variables=((f"{_CNI}/pkg/utils/buildversion.BuildVersion", f"v{version}"),),
    )


def _cni_plugins() -> Bundle:
    file = f"cni-plugins-linux-{ARCHITECTURE}-v{pins.CNI_PLUGINS}.tgz"
    paths = ("main/bridge", "ipam/host-local", "main/loopback", "meta/portmap")
    return Bundle(
        name="cni-plugins",
        version=pins.CNI_PLUGINS,
        official=_release("containernetworking/plugins", f"v{pins.CNI_PLUGINS}", file, f"{file}.sha256"),
        builds={path.split("/")[1]: _cni_plugin("cni-plugins", path, pins.CNI_PLUGINS) for path in paths},
    )


def _flannel_cni_plugin() -> Bundle:
    # Published as an image only under the tag that we name.
    return Bundle(
        name="flannel-cni",
        version=pins.FLANNEL_CNI_PLUGIN,
        builds={"flannel-cni": _cni_plugin("flannel-cni-plugin", "meta/flannel", pins.FLANNEL_CNI_PLUGIN)},
    )


def _flannel() -> Bundle:
    # The release has no checksum file, so what is there can't be verified.
    module = "github.com/flannel-io/flannel"
    return Bundle(
        name="flannel",
        version=pins.FLANNEL,
        builds={
            "flanneld": Build(
                module="flannel",
                package=module,
                variables=((f"{module}/pkg/version.Version", f"v{pins.FLANNEL}"),),
                cgo=True,
            )
        },
    )


def _coredns(version: str) -> Bundle:
    file = f"coredns_{version}_linux_{ARCHITECTURE}.tgz"
    return Bundle(
        name="coredns",
        version=version,
        official=_release("coredns/coredns", f"v{version}", file, f"{file}.sha256"),
        builds={"coredns": Build(module=f"coredns/{version}", package="github.com/coredns/coredns")},
    )


def _rclone() -> Bundle:
    # For its image: what is published as a file is a .zip archive.
    return Bundle(
        name="rclone",
        version=pins.RCLONE,
        builds={
            "rclone": Build(
                module="rclone",
                package=".",
                variables=(("github.com/rclone/rclone/fs.Version", f"v{pins.RCLONE}"),),
            )
        },
    )


def _versitygw() -> Bundle:
    return Bundle(
        name="versitygw",
        version=pins.VERSITYGW,
        builds={
            "versitygw": Build(
                module="versitygw",
                package="github.com/versity/versitygw/cmd/versitygw",
                variables=(("main.Version", f"v{pins.VERSITYGW}"),),
            )
        },
    )


KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
    "kubeadm",
)


def bundles_of(release: pins.Release) -> tuple[Bundle, ...]:
    """Return the tools, and what runs a cluster of this release."""
    return (
        _pulumi(),
        _etcd(release.etcd),
        *(_kubernetes(name, release.kubernetes) for name in KUBERNETES),
        _containerd(),
        _cni_plugins(),
        _flannel_cni_plugin(),
        _flannel(),
        _coredns(release.coredns),
    )


BUNDLES = bundles_of(pins.NEWEST)

ON_DEMAND = (_rclone(), _versitygw())
"""What only some stacks and tests need: a client for S3-compatible storage, and a server of such."""


def _plugin(name: str, version: str) -> Bundle:
    # What is published is installed by Pulumi itself.
    program = f"pulumi-resource-{name}"
    return Bundle(
        name=program,
        version=pins.PLUGINS[name],
        builds={program: Build(module=program, package=".", variables=((version, pins.PLUGINS[name]),))},
    )


_KUBERNETES_PLUGIN = "github.com/pulumi/pulumi-kubernetes/provider/v4"

PLUGINS = {
    "kubernetes": _plugin("kubernetes", f"{_KUBERNETES_PLUGIN}/pkg/version.Version"),
    "tls": _plugin("tls", "main.version"),
}
"""Pulumi's provider plugins that can be built where they can't be installed."""
