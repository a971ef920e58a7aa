"""SSH keys of the account."""

from __future__ import annotations

import base64
import binascii
import hashlib

from pydantic import Field

from tests.e2e.digitalocean.account import Account, Key
from tests.e2e.digitalocean.calls import NOTHING, Answer, Body, Call, Json, Route, invalid, missing


class _Create(Body):
    name: str = Field(min_length=1)
    public_key: str


class _Put(Body):
    name: str = Field(min_length=1)


def find(account: Account, which: int | str) -> Key | None:
    """By id or fingerprint; a number as text is an id too."""
    return next(
        (key for key in account.keys.values() if which in (key.id, str(key.id), key.fingerprint)), None
    )


def _fingerprint(public_key: str) -> str:
    parts = public_key.split(None, 2)
    try:
        blob = base64.b64decode(parts[1], validate=True)
        (length,) = (int.from_bytes(blob[:4]),)
        if blob[4 : 4 + length].decode() != parts[0]:
            raise ValueError("it is of another type than it says")
    except (IndexError, ValueError, binascii.Error) as error:
        raise invalid(
            "public_key", "Key invalid, key should be of the format `type key [comment]`"
        ) from error
    return hashlib.md5(blob, usedforsecurity=False).digest().hex(":")


def _create(account: Account, call: Call) -> Answer:
    body = call.read(_Create)
    fingerprint = _fingerprint(body.public_key)
    if find(account, fingerprint):
        raise invalid("public_key", "SSH Key is already in use on your account")
    key = Key(
        id=account.new_id("key"),
        name=body.name,
        public_key=body.public_key.strip(),
        fingerprint=fingerprint,
    )
    account.keys[key.id] = key
    return Answer(status=201, body={"ssh_key": _show(key)})


def _list(account: Account, call: Call) -> Answer:
    return call.listed("ssh_keys", [*account.keys.values()], _show)


def _get(account: Account, call: Call) -> Answer:
    return Answer(body={"ssh_key": _show(_find(account, call))})


def _put(account: Account, call: Call) -> Answer:
    key, body = _find(account, call), call.read(_Put)
    key.name = body.name
    return Answer(body={"ssh_key": _show(key)})


def _delete(account: Account, call: Call) -> Answer:
    del account.keys[_find(account, call).id]
    return NOTHING


def _find(account: Account, call: Call) -> Key:
    if key := find(account, call.arguments["key"]):
        return key
    raise missing()


def _show(key: Key) -> Json:
    return {"id": key.id, "fingerprint": key.fingerprint, "public_key": key.public_key, "name": key.name}


ROUTES = (
    Route("POST", "/v2/account/keys", _create, "ssh_key:create"),
    Route("GET", "/v2/account/keys", _list, "ssh_key:read"),
    Route("GET", "/v2/account/keys/{key}", _get, "ssh_key:read"),
    Route("PUT", "/v2/account/keys/{key}", _put, "ssh_key:update"),
    Route("DELETE", "/v2/account/keys/{key}", _delete, "ssh_key:delete"),
)
