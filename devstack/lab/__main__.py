"""`python -m devstack.lab COMMAND`: build the guest's image, or take a lab away."""

import os
import sys

from .errors import LabError
from .image import build_image
from .lab import Lab
from .lock import LOCK_FILE

USAGE = """\
usage: python -m devstack.lab COMMAND
  image   download the guest's kernel and build its image
  down    take away a lab that was kept up or whose runner was killed
"""


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["image"]:
                print(build_image())
            case ["down"]:
                was_there = LOCK_FILE.exists()
                Lab.sweep()
                print("the lab is gone" if was_there else "there was no lab")
            case _:
                sys.stderr.write(USAGE)
                return os.EX_USAGE
    except LabError as error:
        sys.stderr.write(f"lab: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
