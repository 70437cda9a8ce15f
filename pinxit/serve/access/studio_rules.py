"""The rules of a server, from its settings."""

from __future__ import annotations

import os

from pinxit.serve.access.access_rules import (
    AccessRules,
    checked_hosts,
    checked_origins,
    checked_root,
)
from pinxit.serve.access.access_token import chosen_token
from pinxit.serve.access.listening import Address, addresses_of, check_reach, own_names
from pinxit.serve.settings import StudioConfig


def rules_of(config: StudioConfig, addresses: list[Address] | None = None) -> AccessRules:
    """Returns the rules of a server with these settings.

    `addresses` are those that it listens on; with None, the host is looked up.
    Raises `UsageError` for a wrong host, origin or token, and if other computers could connect
    without one.
    """
    token = chosen_token(config.token, os.environ)
    if addresses is None:
        addresses = addresses_of(config.host)
    check_reach(config.host, addresses, has_token=token is not None)
    return AccessRules(
        token=token,
        hosts=own_names(config.host, addresses) | checked_hosts(config.allow_host),
        any_address=any(address.is_every for address in addresses),
        origins=checked_origins(config.allow_origin),
        root_path=checked_root(config.root_path),
        cookie=f"pinxit_{config.port}",
    )
