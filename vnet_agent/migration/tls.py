"""Who may talk to whom between agents: mutual TLS, or plain HTTP that stays on the machine."""

import ipaddress
import ssl
from typing import Any
from urllib.parse import urlsplit

from oslo_config import cfg

from vnet_agent import exceptions


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, never leaves the machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Whether it stands for every address of the machine, and so for none that one can call."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def is_configured(conf: cfg.ConfigOpts) -> bool:
    """Whether certificates are given; ConfigError when only some of the three files are."""
    options = conf.migration
    files = {name: options[name] for name in ("cert_file", "key_file", "ca_file")}
    missing = [name for name, value in files.items() if not value]
    if missing and len(missing) < len(files):
        raise exceptions.ConfigError(
            detail=f"[migration] {', '.join(missing)} must be set as well: "
            "mutual TLS needs certificate, key and authorities"
        )
    return not missing


def check_listen(conf: cfg.ConfigOpts) -> None:
    """ConfigError when connections of VMs would cross a network unprotected, or none would."""
    options = conf.migration
    if is_wildcard(options.listen_address) and not options.advertise_url:
        raise exceptions.ConfigError(
            detail=f"[migration] listen_address {options.listen_address} is every address: set "
            "advertise_url to the one that other agents shall use"
        )
    if is_configured(conf) or options.insecure or is_loopback(options.listen_address):
        return
    raise exceptions.ConfigError(
        detail=f"[migration] listen_address {options.listen_address} is not loopback: set "
        "cert_file, key_file and ca_file, or `insecure` in a lab"
    )


def check_url(conf: cfg.ConfigOpts, url: str) -> None:
    """VnetError for a peer that this agent must not talk to."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise exceptions.VnetError(detail=f"{url!r} is no URL of an agent")
    if parts.scheme == "https":
        if not is_configured(conf):
            raise exceptions.VnetError(
                detail=f"{url} needs [migration] cert_file, key_file and ca_file"
            )
    elif not (conf.migration.insecure or is_loopback(parts.hostname)):
        raise exceptions.VnetError(detail=f"{url} is plain HTTP to another machine; refused")


def make_context(conf: cfg.ConfigOpts, *, server: bool) -> ssl.SSLContext | None:
    """A TLS 1.3 context that asks the other side for its certificate; None without files."""
    if not is_configured(conf):
        return None
    options = conf.migration
    try:
        purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
        context = ssl.create_default_context(purpose, cafile=options.ca_file)
        context.load_cert_chain(options.cert_file, options.key_file)
    except (OSError, ssl.SSLError) as error:
        raise exceptions.ConfigError(detail=f"[migration] certificates: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def peer_names(certificate: dict[str, Any]) -> set[str]:
    """Host names of a verified certificate, as `SSLSocket.getpeercert` gives it."""
    names = {name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"}
    return {name.lower() for name in names}
