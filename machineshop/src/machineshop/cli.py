"""The command `machineshop`: which commands there are, and what becomes of their errors.

Commands are named by their import path and loaded when they are called: the whole platform takes a second to load, and
`serve` alone needs all of it.
"""

import os
import sys

from cyclopts import App, CoercionError, CycloptsError, MissingArgumentError

from machineshop import __version__
from machineshop.errors import InvalidRequest, MachineshopError

EXIT_USAGE = 2
# What an option must be that the parser makes one of these types of.
NUMBERS: dict[object, str] = {int: "a whole number", float: "a number"}

# Command, where it is, and its one sentence.
COMMANDS = (
    ("serve", "serve:serve", "Run the platform: one process, one port."),
    ("doctor", "doctor:doctor", "Check this machine for what the platform needs, and name the mend for what it lacks."),
)
GROUPS = {
    "keys": (
        "Make, list and revoke API keys.",
        (
            ("create", "keys:create", "Make an API key and print it; it is not shown again."),
            ("list", "keys:list_keys", "List the keys that people use, revoked ones too."),
            ("revoke", "keys:revoke", "Revoke a key."),
        ),
    ),
    "projects": (
        "Make, list, rename and delete projects.",
        (
            ("create", "projects:create_project", "Make a project."),
            ("list", "projects:list_projects", "List the projects of all organizations."),
            ("rename", "projects:rename_project", "Give a project another name."),
            ("delete", "projects:delete_project", "Delete a project with all that it has."),
        ),
    ),
    "secrets": (
        "Look after the key that secrets are sealed with.",
        (("rotate", "secrets:rotate", "Seal all secrets with a new key."),),
    ),
    "registry": (
        "Look after the registry.",
        (("gc", "registry:gc", "Remove what no tag, no revision and no push under way needs."),),
    ),
}


def build_app() -> App:
    """The command line with all its commands, none of them loaded yet."""
    app = App(name="machineshop", help="Run your own models as a service.", version=__version__)
    add_commands(app, COMMANDS)
    for name, (sentence, commands) in GROUPS.items():
        group = App(name=name, help=sentence)
        add_commands(group, commands)
        app.command(group)
    return app


def add_commands(app: App, commands: tuple[tuple[str, str, str], ...]) -> None:
    """Register commands by import path."""
    for name, path, sentence in commands:
        app.command(f"machineshop.commands.{path}", name=name, help=sentence)


def main() -> None:
    """Run the command line; every error is one sentence and a status: 2 where the command line is wrong, else 1."""
    try:
        build_app()(exit_on_error=False, print_error=False)
    except CycloptsError as error:
        command = " ".join(("machineshop", *(error.command_chain or ())))
        message = str(error)
        if isinstance(error, MissingArgumentError) and error.keyword is None and error.argument is not None:
            message = f"{command} needs {error.argument.name}."
        if isinstance(error, CoercionError) and error.token and error.target_type in NUMBERS:
            message = f'{error.token.keyword} must be {NUMBERS[error.target_type]}, not "{error.token.value}".'
        print(f"machineshop: {message}\nSee `{command} --help`.", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except InvalidRequest as error:
        print(f"machineshop: {error.message}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except MachineshopError as error:
        print(f"machineshop: {error.message}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output, `head` say, has seen enough. Nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("MACHINESHOP_DEBUG"):
            raise
        print(
            f"machineshop: Something went wrong inside: {type(error).__name__}: {error}. That is a defect; "
            "MACHINESHOP_DEBUG=1 shows where it is.",
            file=sys.stderr,
        )
        sys.exit(70)  # EX_SOFTWARE
