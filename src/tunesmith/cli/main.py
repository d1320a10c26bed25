"""The ``tunesmith`` command: its tree, and the process edge. A command's module is imported only when it is used."""

import errno
import os
import sys

from cyclopts import App, CycloptsError, Parameter

from tunesmith import __version__
from tunesmith.core.errors import TunesmithError

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses; 0 is success."""
_OPTION_NAMES = {"fixes": "fix", "lines": "line", "n_epochs": "epochs", "rules": "rule"}
"""Of parameters that have another name than their option."""

app = App(
    name="tunesmith",
    help="Fine-tune open language models on your own machine, through OpenAI's API.",
    version=__version__,
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
app.command(
    "tunesmith.cli.serve:serve",
    help="Start the server: API, training and chat.\n\n"
    "The first start fetches the embedded base model and prints the first API key. Ctrl-C stops the server; training "
    "jobs that are running go on, and the next server follows them.",
)
app.command(
    "tunesmith.cli.doctor:doctor",
    help="Check this machine and say what to do.\n\n"
    "Looks at Python, torch, memory, disk, home, engine, models, database and server. The exit status is 1 when "
    "something must be mended before Tunesmith can work.",
)
app.command("tunesmith.cli.files:app", name="files", help="Upload, list, read and delete data files.")
app.command("tunesmith.cli.data:app", name="data", help="Make data sets with a teacher model.")
app.command("tunesmith.cli.jobs:app", name="jobs", help="Create, watch and steer fine-tuning jobs.")
app.command("tunesmith.cli.models:app", name="models", help="List, fetch and delete models.")
app.command(
    "tunesmith.cli.chat:chat",
    help="Talk to a model.\n\nWith a message it answers once; without one it is a conversation, which Ctrl-D ends.",
)


def main() -> None:
    """Run the command line of this process. Errors are one line on standard error; the status tells what happened."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    try:
        status = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail(f"{error} See: {_help_command(arguments)}", MISUSED)
    except TunesmithError as error:
        return _fail(_with_option(error, arguments), FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone, as in `tunesmith files list | head`; keep the interpreter's exit quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return _fail(_system_error(error), FAILED)
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"tunesmith: {' '.join(message.split())}\n")
    return status


def _with_option(error: TunesmithError, arguments: list[str]) -> str:
    """With the option that it is about, where that was given."""
    name = (error.param or "").rpartition(".")[2]
    option = "--" + _OPTION_NAMES.get(name, name).replace("_", "-")
    is_given = any(argument.partition("=")[0] == option for argument in arguments)
    return f"{option}: {error}" if is_given else str(error)


def _system_error(error: OSError) -> str:
    what = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{what}. Make room there, or name a path on another disk." if is_full else what


def _help_command(arguments: list[str]) -> str:
    """The help of the deepest command that the arguments name."""
    words = ["tunesmith"]
    commands = app
    for argument in arguments:
        if argument.startswith("-") or argument not in commands:
            break
        words.append(argument)
        commands = commands[argument]
    return " ".join([*words, "--help"])


if __name__ == "__main__":
    main()
