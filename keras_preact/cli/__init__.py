"""The console command `keras-preact`: a file for each group of verbs, each verb one call into the package.

A verb imports what it needs when it runs, so that help, `list`, `show` and `recipes` start no backend.
"""
import io
import sys
import traceback

import click

from keras_preact.cli import benchmarks, exports, images, networks, pages, paper, training, weights
from keras_preact.version import __version__

STATUSES = {
    0: "All is done.",
    1: "The work failed: at a file, the Hub, a library that is not installed, or a training that diverged.",
    2: "The command is wrong: an option, a value that is not allowed, a file that is not there.",
    130: "It was interrupted.",
}
WRONG = ValueError, FileNotFoundError, IsADirectoryError  # of what fails, what ends with 2
EPILOG = """
\b
Exit status:
""" + "\n".join(f"  {status:<4} {meaning}" for status, meaning in STATUSES.items()) + """

\b
Shell completion, for bash (or zsh, fish):
  eval "$(_KERAS_PREACT_COMPLETE=bash_source keras-preact)"
"""


class _InOrder(click.Group):
    """A group that lists its verbs in the order in which they were added."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    "keras-preact", _InOrder, epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120, "show_default": True},
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="keras-preact")
@click.pass_obj
def command(settings, debug):
    """Pre-activation ResNets: classify images, and list, inspect, train, measure and publish networks."""
    settings["debug"] = debug


for _group in (images, pages, networks, training, weights, exports, paper, benchmarks):
    for _verb in _group.VERBS:
        command.add_command(_verb)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit status, one of `STATUSES`.

    Args:
        arguments: of the command; default those of this process.
    """
    for stream in sys.stdout, sys.stderr:
        # Strict ones end at names of files that are no text.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    settings: dict[str, bool] = {}
    try:
        return command.main(arguments, "keras-preact", standalone_mode=False, obj=settings) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("keras-preact: interrupted", err=True)
        return 130
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if settings["debug"]:
            traceback.print_exc()
        click.echo(f"keras-preact: {error}", err=True)
        return 2 if isinstance(error, WRONG) else 1
