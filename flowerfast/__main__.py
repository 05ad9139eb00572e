"""The `flowerfast` command, and `python -m flowerfast`."""

import os
import signal
import sys


def main() -> None:
    """Do what the command line says, and end the process."""
    # A network's threads that wait for each other leave the cores to those that decode.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
    try:
        from flowerfast.commands import cli
    except KeyboardInterrupt:  # of which imports would show where they were
        sys.stderr.write("flowerfast: stopped by SIGINT\n")
        sys.stderr.flush()
        os._exit(128 + signal.SIGINT)
    cli.main()


if __name__ == "__main__":
    main()
