"""The page at `/`, and its files, which are few and small enough to stay in memory."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from aiohttp import web

STATIC = Path(str(files("vnet_controller") / "static"))

_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    body: bytes
    content_type: str
    etag: str


def read_assets() -> dict[str, Asset]:
    """All files of the page, by their paths below /static/."""
    assets = {}
    for path in sorted(STATIC.rglob("*")):
        if path.suffix in _TYPES:
            body = path.read_bytes()
            etag = hashlib.sha256(body).hexdigest()[:32]
            name = path.relative_to(STATIC).as_posix()
            assets[name] = Asset(body, _TYPES[path.suffix], etag)
    return assets


def add_routes(application: web.Application) -> None:
    assets = read_assets()

    def answer(request: web.Request, name: str) -> web.Response:
        asset = assets.get(name)
        if asset is None:
            raise web.HTTPNotFound
        known = {tag.value for tag in request.if_none_match or ()}
        response = (
            web.Response(status=304)
            if asset.etag in known
            else web.Response(body=asset.body, content_type=asset.content_type, charset="utf-8")
        )
        response.etag = asset.etag
        response.headers["Cache-Control"] = "no-cache"
        return response

    async def get_page(request: web.Request) -> web.Response:
        return answer(request, "index.html")

    async def get_asset(request: web.Request) -> web.Response:
        return answer(request, request.match_info["name"])

    application.router.add_get("/", get_page)
    application.router.add_get("/static/{name:.+}", get_asset)
