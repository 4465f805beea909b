"""`twofold VERB ...`: parses, executes, and turns errors into messages and exit codes."""

from __future__ import annotations

import platform
import re
import signal
import sys
import traceback
from typing import Annotated

import tyro

from twofold import __version__
from twofold.cli.benching import Bench
from twofold.cli.estimation import Estimate, Explain, Validate
from twofold.cli.exporting import Engines, Export, Import
from twofold.cli.facts import Catalog, Inspect
from twofold.cli.launching import Launch
from twofold.cli.machine import Calibrate, Doctor
from twofold.cli.output import answer, say
from twofold.cli.planning import Plan
from twofold.cli.proving import Prove
from twofold.cli.running import Run
from twofold.cli.serving import Serve
from twofold.errors import TwofoldError

EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
_NEGATIVE, _OPTION = re.compile(r"-[0-9.]"), re.compile(r"--[a-z-]+$")

Verb = (
    Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Estimate, tyro.conf.subcommand("estimate")]
    | Annotated[Explain, tyro.conf.subcommand("explain")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Catalog, tyro.conf.subcommand("catalog")]
    | Annotated[Validate, tyro.conf.subcommand("validate")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Engines, tyro.conf.subcommand("engines")]
    | Annotated[Launch, tyro.conf.subcommand("launch")]
    | Annotated[Prove, tyro.conf.subcommand("prove")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `twofold` command."""
    sys.exit(_main(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        answer(f"twofold {__version__}")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        verb = tyro.cli(
            Verb,
            args=_with_negative_values(arguments),
            prog="twofold",
            description="Plan, run and prove AI training on the machines you have.",
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        )
        return int(verb.execute())
    except TwofoldError as error:
        say(_error_text(error))
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted; what was finished is kept: go on with `twofold run FOLDER` or")
        say("`twofold prove --resume FOLDER`, the folder being the one named above")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return 0
    except Exception:
        say(_bug_report(arguments))
        return EXIT_INTERNAL


def _with_negative_values(arguments: list[str]) -> list[str]:
    """`--deadline -3d` as `--deadline=-3d`: a wrong value of its option, no option of its own."""
    joined: list[str] = []
    for word in arguments:
        if joined and _NEGATIVE.match(word) and _OPTION.match(joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _error_text(error: TwofoldError) -> str:
    lines = [f"error: {error.what}"]
    if error.at is not None:
        lines.append(f"   at: {error.at}")
    if error.help is not None:
        lines.append(f" help: {error.help}")
    return "\n".join(lines)


def _bug_report(arguments: list[str]) -> str:
    return "\n".join(
        [
            "error: this is a bug of Twofold, not of yours. Please report it with this block:",
            "```",
            f"twofold {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"twofold {' '.join(arguments)}",
            traceback.format_exc().rstrip(),
            "```",
        ]
    )
