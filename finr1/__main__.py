"""The commands `python -m finr1 COMMAND` (`commands.yaml`), each with `--help`; `python -m finr1 --help` lists them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name

from finr1.paths import MessageAlone, data_beside, remedy

_TYPES = {"int": int, "float": float, "path": Path}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 2 for wrong input, 1 for what failed, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m finr1", description="The Fin-R1 recipe, from data to report.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in data_beside(__file__, "commands.yaml").items():
        subparser = commands.add_parser(name, help=command["help"], description=command["help"])
        subparser.set_defaults(does=command["does"])
        for option, how in command["options"].items():
            subparser.add_argument(option, **how | ({"type": _TYPES[how["type"]]} if "type" in how else {}))
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # a name of a file, or a terminal's encoding, must end no command
        stream.reconfigure(errors="backslashreplace")
    try:
        return resolve_name(options.does)(options)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command again resumes", file=sys.stderr)
        return 130
    except OSError as error:  # what cannot be read or written, in one line
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print("; ".join(filter(None, [what, remedy(error)])), file=sys.stderr)
        return 1
    except (ValueError, RuntimeError) as error:  # what is wrong with the input, or has failed and says so
        if not isinstance(error, ValueError | MessageAlone):
            raise
        from finr1.records import told

        print(told(error), file=sys.stderr)
        return getattr(error, "exit_code", 2)


if __name__ == "__main__":
    sys.exit(main())
