"""The `flowerfast` command, and `python -m flowerfast`."""

import os
import signal
import sys


def main() -> None:
    """Do what the command line says, and end the process."""
    try:
        from flowerfast.commands import cli
    except KeyboardInterrupt:  # of which imports would show where they were
        sys.stderr.write("flowerfast: stopped by SIGINT\n")
        sys.stderr.flush()
        os._exit(128 + signal.SIGINT)
    cli.main()


if __name__ == "__main__":
    main()
