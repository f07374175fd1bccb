"""The program vnet-agent."""

import asyncio
import os
import re
import sys
from collections.abc import Sequence

from oslo_config import cfg
from oslo_log import log

from vnet_agent import config
from vnet_agent.daemon import Daemon
from vnet_agent.exceptions import ConfigError, VnetError
from vnet_agent.version import version


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until it is told to stop; the exit status is EX_CONFIG (78) for a bad configuration."""
    try:
        conf = config.load(
            sys.argv[1:] if arguments is None else arguments, also=log.register_options
        )
        log.setup(conf, "vnet-agent", version())
        asyncio.run(Daemon(conf).run())
    except (cfg.Error, ConfigError) as error:
        return complain(error, os.EX_CONFIG)
    except VnetError as error:
        return complain(error, 1)
    return 0


def complain(error: Exception, status: int) -> int:
    """One line that names option, value and file: oslo.config shows the file as a tuple."""
    text = re.sub(r"LocationInfo\(.*?detail='([^']*)'\)", r"\1", " ".join(str(error).split()))
    print(f"vnet-agent: {text}", file=sys.stderr)
    return status
