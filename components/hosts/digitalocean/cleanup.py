"""Removes what a cluster has at DigitalOcean: what a killed run left, and at the end all of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import pulumi
import pulumi_command as command
import pulumi_tls as tls

from components.config import ClusterConfig, ConfigError, Problem
from components.hosts.digitalocean import account
from components.hosts.digitalocean.account import Account, Refused
from components.hosts.digitalocean.checks import cluster_problems, host_problems

__all__ = ["Cleanup"]

HOOK_SECONDS = 180
DESTROY_SECONDS = 480
MARK_DIGITS = 7

T = TypeVar("T")


class Cleanup(command.local.Command):
    """Does nothing until it is deleted; then it removes all that has the cluster's mark, whether the state
    knows of it or not, and waits until it is gone.

    The provider would do it one by one, fails at a droplet that somebody deleted by hand, and knows of
    nothing that a killed run made. So what is made as `marked` is left to this when it goes as well; by
    itself, as a worker that leaves the config, it is deleted by the provider. The token comes by stdin.
    """

    mark: pulumi.Output[str]
    """The cluster's name and digits that no other stack has, since they come from its login key."""
    controllers: pulumi.Output[str]
    """The tag of controllers, and the name of what lets administrators in there."""
    balancer: pulumi.Output[str]
    """The name of what lets the balancer in."""
    marked: pulumi.ResourceOptions
    """Options of what has the mark in its name or its tags, and of the reserved IP that a tag names."""
    opts: pulumi.ResourceOptions
    """Options of what has none, so that the provider deletes it: records."""

    def __init__(
        self, name: str, cfg: ClusterConfig, login: tls.PrivateKey, opts: pulumi.ResourceOptions
    ) -> None:
        assert cfg.digital_ocean is not None
        settings = pulumi.Config("digitalocean")
        if settings.get("token") and not pulumi.runtime.is_config_secret("digitalocean:token"):
            mend = "it is in plain text: pulumi config set --secret digitalocean:token"
            raise ConfigError([Problem(key="digitalocean:token", value="(secret)", mend=mend)])
        endpoint = settings.get("apiEndpoint") or os.environ.get("DIGITALOCEAN_API_URL") or account.API
        token = settings.get_secret("token") or pulumi.Output.secret("")
        domain = cfg.digital_ocean.domain
        self._cfg, self._login, self._given, self._endpoint = cfg, login, token, endpoint
        self._account: Account | None = None
        self.mark = login.public_key_openssh.apply(lambda key: f"{name}-{_digits(key)}")
        self.controllers = self.mark.apply(lambda mark: f"{mark}-controllers")
        self.balancer = self.mark.apply(lambda mark: f"{mark}-balancer")
        super().__init__(
            f"{name}-cleanup",
            interpreter=["python3", "-c"],
            delete=Path(account.__file__).read_text(),
            environment={
                "KUBEPIVOT_API": endpoint,
                "KUBEPIVOT_SECONDS": str(DESTROY_SECONDS),
                "KUBEPIVOT_MARK": self.mark,
                "KUBEPIVOT_FINGERPRINT": login.public_key_fingerprint_md5,
                "KUBEPIVOT_NAMES": pulumi.Output.concat(self.mark, " ", self.controllers, " ", self.balancer),
                "KUBEPIVOT_RECORD": f"{domain}/{name}" if domain else "",
            },
            stdin=token,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(delete="10m"))
            ),
        )
        hooks = pulumi.ResourceHookBinding(
            before_create=[pulumi.ResourceHook("digitalocean-before-create", self._before_create)],
            after_create=[pulumi.ResourceHook("digitalocean-after-create", self._after_create)],
            before_update=[pulumi.ResourceHook("digitalocean-before-update", self._before_update)],
        )
        own = pulumi.ResourceOptions(depends_on=[self], hooks=hooks, delete_before_replace=True)
        self.opts = pulumi.ResourceOptions.merge(opts, own)
        self.marked = pulumi.ResourceOptions.merge(self.opts, pulumi.ResourceOptions(deleted_with=self))

    def tag_of(self, address: pulumi.Output[str]) -> pulumi.Output[str]:
        """The tag that names a reserved IP as the cluster's."""
        return pulumi.Output.all(self.mark, address).apply(lambda known: account.tag_of(*known))

    async def _before_create(self, args: pulumi.ResourceHookArgs) -> None:
        """Refuses what the API would refuse later, and removes what a killed run made in its place."""
        mark, inputs = await self._known(args)
        kind = args.type.rpartition(":")[2]
        match kind:
            case "Tag" if inputs["name"] == mark:
                await self._refuse(cluster_problems)
            case "Droplet":
                await self._refuse(partial(host_problems, host=self._host(args)))
                await self._remove(kind, inputs["name"], mark)
            case "SshKey":
                await self._remove(kind, str(await self._login.public_key_fingerprint_md5.future()), mark)
            case "Vpc" | "Firewall" | "LoadBalancer":
                await self._remove(kind, inputs["name"], mark)
            case "ReservedIp":
                await self._remove(kind, "", mark)
            case "ReservedIpAssignment":
                # The API gives nobody what somebody has.
                await self._ask(lambda asked: account.unassign(asked, inputs["ipAddress"]))
            case "DnsRecord":
                await self._claim(inputs["domain"], inputs["name"], inputs["value"])

    async def _after_create(self, args: pulumi.ResourceHookArgs) -> None:
        """Removes the other one, where the answer to a request was lost and the provider asked again."""
        mark, inputs = await self._known(args)
        kind = args.type.rpartition(":")[2]
        if kind in ("Droplet", "LoadBalancer"):
            await self._remove(kind, inputs["name"], mark, keep=args.id)

    async def _before_update(self, args: pulumi.ResourceHookArgs) -> None:
        if args.type.endswith(":Droplet"):
            await self._refuse(partial(host_problems, host=self._host(args)))

    async def _known(self, args: pulumi.ResourceHookArgs) -> tuple[str, Any]:
        mark = await self.mark.future()
        assert mark is not None and args.new_inputs is not None, "an update knows all of its inputs"
        return mark, args.new_inputs

    def _host(self, args: pulumi.ResourceHookArgs) -> str:
        return args.name.removeprefix(f"{self._cfg.name}-").removesuffix("-droplet")

    async def _refuse(self, look: Callable[[Account, ClusterConfig], list[Problem]]) -> None:
        problems = await self._ask(lambda asked: look(asked, self._cfg))
        if problems:
            raise ConfigError(problems)

    async def _remove(self, kind: str, name: str, mark: str, *, keep: str = "") -> None:
        await self._ask(lambda asked: account.remove(asked, kind, name, mark, keep=keep))

    async def _claim(self, domain: str, name: str, address: str) -> None:
        other = await self._ask(lambda asked: account.remove_record(asked, domain, name, {address}))
        if other:
            mend = (
                f"{name}.{domain} is taken, and leads to {other}: remove that record, or rename the cluster"
            )
            raise ConfigError([Problem.at(["digitalOcean", "domain"], domain, mend)])

    async def _ask(self, what: Callable[[Account], T]) -> T:
        """Asks the API in a thread; what it refuses is told without a traceback."""
        if self._account is None:
            token = account.token_of(await self._given.future() or "", os.environ)
            if not token:
                mend = "it is required: pulumi config set --secret digitalocean:token"
                raise ConfigError([Problem(key="digitalocean:token", value="(not set)", mend=mend)])
            self._account = Account(self._endpoint, token)
        try:
            return await asyncio.to_thread(what, self._account.within(HOOK_SECONDS))
        except Refused as error:
            raise pulumi.RunError(f"DigitalOcean: {error}") from None


def _digits(key: str) -> str:
    return sha256(key.strip().encode()).hexdigest()[:MARK_DIGITS]
