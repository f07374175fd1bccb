"""The page at `/`, and its files."""

from importlib.resources import files
from pathlib import Path

from aiohttp import web

STATIC = Path(str(files("vnet_controller") / "static"))


async def get_page(_request: web.Request) -> web.FileResponse:
    return web.FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


def add_routes(application: web.Application) -> None:
    application.router.add_get("/", get_page)
    application.router.add_static("/static", STATIC)
