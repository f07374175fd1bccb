"""The program `vnet-controller`."""

import asyncio
import os
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
    except (cfg.Error, UnsafeListener) as error:
        return fail(error, os.EX_CONFIG)
    except (OSError, SQLAlchemyError) as error:
        return fail(error, os.EX_OSERR)
    return os.EX_OK


def fail(error: Exception, status: int) -> int:
    print(f"vnet-controller: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
