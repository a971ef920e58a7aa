"""What a cluster has at DigitalOcean, by its mark, whether a state knows of it or not.

A run that is killed leaves things that no state has, and the API makes two droplets of one name without a
word. So a cluster has a mark that is in no other account and no other stack, in the names or the tags of all
that is its own; whatever has it is the cluster's and may go.

Runs by itself as well, where Pulumi runs (`python3 -c`, see cleanup.py): the standard library only.
"""

from __future__ import annotations

import copy
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = [
    "API",
    "Account",
    "Refused",
    "remove",
    "remove_all",
    "remove_record",
    "tag_of",
    "token_of",
    "unassign",
]

API = "https://api.digitalocean.com"
TOKENS = ("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN")
REQUEST_SECONDS = 30
PAUSE_SECONDS = 1.0
PER_PAGE = 200
LIMITED = 429

_BUSY = {
    "/v2/droplets": (422,),  # an action is pending
    "/v2/load_balancers": (403, 422),  # the change before is under way
    "/v2/reserved_ips": (422,),
    "/v2/vpcs": (403, 409),  # droplets leave it some time after they are gone
}
"""Answers that say no more than: not yet."""

Object = dict[str, Any]


class Refused(Exception):
    """The API says no, or nothing within the time; the text is for the user."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Account:
    """Asks DigitalOcean's API. Limits and failures of its are waited out, see `within`."""

    def __init__(self, endpoint: str, token: str) -> None:
        self._endpoint, self._token = endpoint.rstrip("/"), token
        self._deadline = 0.0
        self._lists: dict[str, dict[str, Object]] = {}

    def within(self, seconds: float) -> Account:
        """The same, for a task that has so much time in all."""
        task = copy.copy(self)
        task._deadline = time.monotonic() + seconds
        return task

    def get(self, path: str) -> Object | None:
        """The answer; None if there is no such thing."""
        return self._ask("GET", path)

    def all(self, path: str, key: str) -> Iterator[Object]:
        """The items of all pages of a list."""
        page, separator = 1, "&" if "?" in path else "?"
        while True:
            answer = self._ask("GET", f"{path}{separator}per_page={PER_PAGE}&page={page}") or {}
            yield from answer.get(key) or []
            if not (answer.get("links", {}).get("pages") or {}).get("next"):
                return
            page += 1

    def once(self, path: str, key: str) -> Mapping[str, Object]:
        """The items of a list by their slugs, asked for once."""
        if path not in self._lists:
            self._lists[path] = {each["slug"]: each for each in self.all(path, key)}
        return self._lists[path]

    def delete(self, path: str) -> None:
        """Deletes it, if it is there. What is busy, or has members yet, is asked again."""
        busy = next((codes for prefix, codes in _BUSY.items() if path.startswith(prefix)), ())
        while True:
            try:
                self._ask("DELETE", path)
                return
            except Refused as error:
                if error.status not in busy:
                    raise
                self.pause(f"it can't be deleted: {error}", PAUSE_SECONDS)

    def act(self, path: str, action: str) -> None:
        """Orders an action, once it is possible; it takes its time."""
        while True:
            try:
                self._ask("POST", f"{path}/actions", {"type": action})
                return
            except Refused as error:
                if error.status != http.client.UNPROCESSABLE_ENTITY:
                    raise
                self.pause(f"{action} is not possible: {error}", PAUSE_SECONDS)

    def pause(self, reason: str, seconds: float) -> None:
        """Waits a little; Refused with the reason when the time is over."""
        if time.monotonic() + seconds > self._deadline:
            raise Refused(reason)
        time.sleep(seconds)

    def _ask(self, method: str, path: str, body: Object | None = None) -> Object | None:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        while True:
            request = urllib.request.Request(
                f"{self._endpoint}{path}", content, method=method, headers=headers
            )
            wait = PAUSE_SECONDS
            try:
                with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as answer:
                    text = answer.read()
                    found: Object = json.loads(text) if text else {}
                    return found
            except urllib.error.HTTPError as error:
                with error:
                    status, reason = error.code, _message(error.read())
                if status == http.client.NOT_FOUND:
                    return None
                if status != LIMITED and status < http.client.INTERNAL_SERVER_ERROR:
                    raise Refused(f"{method} {path}: {status} {reason}", status) from None
                wait = float(error.headers.get("Retry-After") or wait)
                reason = f"{status} {reason}"
            except (OSError, http.client.HTTPException) as error:
                reason = str(error)
            self.pause(f"{method} {path}: {reason}", wait)


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:200]


def token_of(text: str, environment: Mapping[str, str]) -> str:
    """The token: what the config says, else that of the environment, as for the provider."""
    return text or next((environment[name] for name in TOKENS if environment.get(name)), "")


def remove(account: Account, kind: str, name: str, mark: str, *, keep: str = "") -> None:
    """Removes what has the mark and, of its kind, the name, but for the one whose id is to be kept."""
    match kind:
        case "Droplet":
            _remove_droplets(account, mark, name=name, keep=keep)
        case "SshKey":
            account.delete(f"/v2/account/keys/{name}")
        case "ReservedIp":
            for address in _reserved(account, mark):
                account.delete(f"/v2/reserved_ips/{address}")
        case "Vpc" | "Firewall" | "LoadBalancer":
            path, key = _PATHS[kind]
            for each in account.all(path, key):
                if each["name"] == name and each["id"] != keep:
                    account.delete(f"{path}/{each['id']}")
        case _:
            raise AssertionError(kind)


_PATHS = {
    "Vpc": ("/v2/vpcs", "vpcs"),
    "Firewall": ("/v2/firewalls", "firewalls"),
    "LoadBalancer": ("/v2/load_balancers", "load_balancers"),
}


def _droplets(account: Account, mark: str) -> list[Object]:
    return list(account.all(f"/v2/droplets?tag_name={urllib.parse.quote(mark)}", "droplets"))


def _remove_droplets(account: Account, mark: str, *, name: str = "", keep: str = "") -> None:
    """Returns when they are gone, and not when the API has taken note."""
    while found := [
        each for each in _droplets(account, mark) if name in ("", each["name"]) and str(each["id"]) != keep
    ]:
        for each in found:
            account.delete(f"/v2/droplets/{each['id']}")
        names = ", ".join(each["name"] for each in found)
        account.pause(f"droplets are still there: {names}", PAUSE_SECONDS)


def tag_of(mark: str, address: str) -> str:
    """What says of a reserved IP, which has neither name nor tags, whose it is."""
    return f"{mark}:{address.replace('.', '-')}"


def _address_tags(account: Account, mark: str) -> list[str]:
    return [each["name"] for each in account.all("/v2/tags", "tags") if each["name"].startswith(f"{mark}:")]


def _reserved(account: Account, mark: str) -> list[str]:
    """Addresses that lead to a droplet with the mark, or that a tag names and that lead nowhere."""
    named = _address_tags(account, mark)
    return [
        each["ip"]
        for each in account.all("/v2/reserved_ips", "reserved_ips")
        if (
            mark in (each["droplet"].get("tags") or [])
            if each.get("droplet")
            else tag_of(mark, each["ip"]) in named
        )
    ]


def unassign(account: Account, address: str) -> None:
    """Takes a reserved IP from the droplet that has it, if one does, and waits until it is free."""
    path, ordered = f"/v2/reserved_ips/{address}", False
    while ((account.get(path) or {}).get("reserved_ip") or {}).get("droplet"):
        if not ordered:
            account.act(path, "unassign")
            ordered = True
        account.pause(f"reserved IP {address} is still assigned", PAUSE_SECONDS)


def remove_record(account: Account, domain: str, name: str, addresses: set[str]) -> str:
    """Removes the address records of that name whose address is the cluster's. Returns that of another."""
    other = ""
    for each in list(
        account.all(f"/v2/domains/{domain}/records?type=A&name={name}.{domain}", "domain_records")
    ):
        if each["data"] in addresses:
            account.delete(f"/v2/domains/{domain}/records/{each['id']}")
        else:
            other = str(each["data"])
    return other


def remove_all(account: Account, mark: str, fingerprint: str, names: list[str], record: str) -> str:
    """Removes all that has the mark, firewalls and tags that have one of the names, and the record
    (domain/name) of an address of theirs. Returns what stays, and why; "" for nothing.
    """
    reserved = _reserved(account, mark)
    balancers = [each["ip"] for each in account.all(*_PATHS["LoadBalancer"]) if each["name"] == mark]
    if record:
        domain, name = record.split("/")
        remove_record(account, domain, name, {*reserved, *balancers})
    for address in reserved:
        account.delete(f"/v2/reserved_ips/{address}")
    remove(account, "LoadBalancer", mark, mark)
    _remove_droplets(account, mark)
    for each in list(account.all("/v2/firewalls", "firewalls")):
        if each["name"] in names:
            account.delete(f"/v2/firewalls/{each['id']}")
    remove(account, "SshKey", fingerprint, mark)
    stays = _remove_vpc(account, mark)
    for name in [*names, *_address_tags(account, mark)]:
        account.delete(f"/v2/tags/{urllib.parse.quote(name)}")
    return stays


def _remove_vpc(account: Account, mark: str) -> str:
    for each in list(account.all("/v2/vpcs", "vpcs")):
        if each["name"] == mark:
            # The first of a region; no API makes another one the default while it is the only one.
            if each.get("default"):
                return (
                    f"VPC {mark} stays: it is the default of its region, which can't be deleted. It costs "
                    "nothing"
                )
            account.delete(f"/v2/vpcs/{each['id']}")
    return ""


if __name__ == "__main__":
    _token = token_of(sys.stdin.read().strip(), os.environ)
    _account = Account(os.environ["KUBEPIVOT_API"], _token).within(float(os.environ["KUBEPIVOT_SECONDS"]))
    try:
        print(
            remove_all(
                _account,
                os.environ["KUBEPIVOT_MARK"],
                os.environ["KUBEPIVOT_FINGERPRINT"],
                os.environ["KUBEPIVOT_NAMES"].split(),
                os.environ["KUBEPIVOT_RECORD"],
            )
        )
    except Refused as _error:
        sys.exit(f"error: {_error}\nmend:  see what is there with the tag {os.environ['KUBEPIVOT_MARK']}")
