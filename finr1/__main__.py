"""The commands `python -m finr1 COMMAND`, each with `--help`; `python -m finr1 --help` lists them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from finr1 import launch, pipeline, plan, progress, sources
from finr1.evaluation import harness, regrade
from finr1.generation import command as generation_command
from finr1.paths import MessageAlone, remedy

COMMANDS = (pipeline, progress, launch, plan, sources, generation_command, regrade, harness)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m finr1", description="The Fin-R1 recipe, from data to report.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_command(commands)
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # a name of a file, or a terminal's encoding, must end no command
        stream.reconfigure(errors="backslashreplace")
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command again resumes", file=sys.stderr)
        return 130
    except OSError as error:  # what cannot be read or written, in one line
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print("; ".join(filter(None, [what, remedy(error)])), file=sys.stderr)
        return 1
    except Exception as error:
        if not isinstance(error, MessageAlone):
            raise
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
