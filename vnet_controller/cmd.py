"""The program `vnet-controller`."""

import asyncio
import sys

from oslo_config import cfg
from oslo_log import log
from sqlalchemy.exc import SQLAlchemyError

from vnet_controller import config
from vnet_controller.server import Server, UnsafeListener


def main() -> int:
    try:
        conf = config.load(sys.argv[1:])
        log.setup(conf, "vnet-controller")
        asyncio.run(Server(conf).run())
    except (cfg.Error, OSError, SQLAlchemyError, UnsafeListener) as error:
        print(f"vnet-controller: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
