"""The command `jig`: which commands there are, and what becomes of their errors.

Commands are named by their import path and loaded when they are called, so that `jig --help` loads none of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from cyclopts import App, CoercionError, CycloptsError, MissingArgumentError, UnusedCliTokensError

from jig.arguments import forgotten, normalize, wants_json
from jig.errors import EXIT_ERROR, EXIT_INTERRUPTED, JigError, UsageError
from jig.output import Output
from jig.usage import left_over, needs_value, without_value

HELP = "Deploy models to Machineshop, and use them."

# Command, where it is, and its one sentence; in the order of a project's life.
COMMANDS = (
    ("init", "init:init", "Write a starter project."),
    ("run", "run:run", "Run the worker here, without a platform, for one job or for all the jobs of a file."),
    ("dev", "dev:dev", "Run this project on a throw-away platform, and deploy it again when a file changes."),
    ("dockerfile", "image:dockerfile", "Write the Dockerfile and the .dockerignore of this project."),
    ("build", "image:build_command", "Build this project's image on this machine."),
    ("push", "image:push_command", "Push the image that was built last to the platform's registry."),
    ("deploy", "deploy:deploy", "Deploy this project and wait until it is ready."),
    ("rollback", "revisions:rollback", "Run an earlier revision again."),
    ("status", "deployments:status", "Show a deployment and its replicas."),
    ("list", "deployments:list_deployments", "List the project's deployments."),
    ("logs", "logs:logs", "Print what a deployment's replicas have written."),
    ("endpoint", "deployments:endpoint", "Print the URL at which a deployment answers requests."),
    ("submit", "submit:submit", "Submit a job to a deployment's queue, or all the jobs of a file."),
    ("job-status", "jobs:job_status", "Show a job: its state, its progress and its result."),
    ("job-cancel", "job_changes:job_cancel", "Cancel a job."),
    ("queue-status", "queue:queue_status", "Show how many jobs of a deployment run and wait."),
    ("queue-clear", "queue:queue_clear", "Cancel all jobs of a deployment that wait."),
    ("queue-settings", "queue:queue_settings", "Show a queue's limits and fair keys, or change them."),
    ("download", "download:download", "Fetch a file from the platform's storage."),
    ("destroy", "deployments:destroy", "Delete a deployment, and wait until its last replica has ended."),
    ("doctor", "doctor:doctor", "Check what a deploy needs, and name the mend for what is missing."),
    ("audit", "audit:audit", "Show who changed what."),
)
GROUPS = {
    "jobs": (
        "List, show, cancel, retry and watch jobs.",
        (
            ("list", "jobs:list_jobs", "List a deployment's jobs, newest first."),
            ("show", "jobs:show", "Show all that is known about a job."),
            ("cancel", "job_changes:cancel", "Cancel jobs."),
            ("retry", "job_changes:retry", "Submit ended jobs again."),
            ("watch", "jobs:watch", "Watch one job until it ends, or all changes in a queue."),
        ),
    ),
    "revisions": (
        "See what a deployment has run.",
        (
            ("list", "revisions:list_revisions", "List which revision was put to work when."),
            ("show", "revisions:show", "Show a revision's configuration."),
            ("diff", "revisions:diff", "Show what differs between two revisions."),
        ),
    ),
    "scale": (
        "Change a deployment's number of replicas with --min and --max, or see why it is what it is.",
        (
            ("set", "scale:set_bounds", "Change between how many replicas a deployment has; `set` may be left out."),
            ("why", "scale:why", "Say why a deployment has as many replicas as it has."),
        ),
    ),
    "secrets": (
        "Set and delete values that only replicas see.",
        (
            ("set", "secrets:set_secret", "Set a secret of this project; the value comes from standard input."),
            ("redeploy", "secrets:redeploy", "Replace the replicas that use a secret, so that they have its value."),
            ("unset", "secrets:unset", "Leave a secret out of the next deploy; the platform keeps it."),
            ("delete", "secrets:delete", "Delete a secret on the platform, and leave it out of the next deploy."),
            ("list", "secrets:list_secrets", "List this project's secrets, and whether the next deploy has them."),
        ),
    ),
    "volumes": (
        "Make, change and delete volumes: files that replicas read.",
        (
            ("create", "volumes:create", "Make a volume of a folder, or of what is in S3."),
            ("update", "volumes:update", "Make a volume's next version; unchanged files are not sent again."),
            ("download", "volume_download:download", "Fetch the files of a volume into a folder."),
            ("delete", "volumes:delete", "Delete a volume with all its versions."),
            ("describe", "volumes:describe", "Show a volume: its status, files, versions, and who mounts it."),
            ("list", "volumes:list_volumes", "List the project's volumes."),
        ),
    ),
    "auth": (
        "Log in and out.",
        (
            ("login", "auth:login", "Check an API key and remember it for a platform."),
            ("logout", "auth:logout", "Forget the current context's key."),
            ("status", "auth:status", "Show which platform is used, with which key."),
            ("key", "auth:key", "Print the API key in use."),
        ),
    ),
    "context": (
        "Switch between platforms.",
        (
            ("list", "contexts:list_contexts", "List the platforms that you are logged in to."),
            ("use", "contexts:use", "Make a context the current one."),
            ("show", "contexts:show", "Show a context, without its key."),
            ("remove", "contexts:remove", "Forget a context with its key."),
        ),
    ),
}

# What an option must be that the parser makes one of these types of.
NUMBERS: dict[object, str] = {int: "a whole number", float: "a number"}
# Those whose `--version` is not that of jig.
OWN_VERSION = {"volumes:describe", "volume_download:download"}
# What a group does where none of its commands is named.
DEFAULT_COMMANDS = {"revisions": "list", "scale": "set"}


def build_app() -> App:
    """The command line with all its commands, none of them loaded yet."""
    app = App(name="jig", help=HELP, version=version_line, help_format="plaintext")
    add_commands(app, COMMANDS)
    for name, (sentence, commands) in GROUPS.items():
        group = App(name=name, help=sentence, help_format="plaintext")
        add_commands(group, commands)
        app.command(group)
    return app


def defaults() -> dict[str, tuple[str, tuple[str, ...]]]:
    """The groups that may be used as a command: what they do then, and what they have otherwise."""
    return {
        group: (default, tuple(name for name, _, _ in GROUPS[group][1])) for group, default in DEFAULT_COMMANDS.items()
    }


def version_line() -> str:
    """What `--version` prints."""
    from importlib.metadata import version  # noqa: PLC0415  it takes a while to load, and is seldom needed

    return f"jig {version('jig-together')}"


def add_commands(app: App, commands: Sequence[tuple[str, str, str]]) -> None:
    """Register commands by import path, shown in this order."""
    for at, (name, path, sentence) in enumerate(commands):
        own: dict[str, Any] = {"version_flags": ()} if path in OWN_VERSION else {}
        app.command(f"jig.commands.{path}", name=name, help=sentence, sort_key=at, **own)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 1 for an error, 2 for a wrong command line, 130 for Ctrl-C.

    Args:
        words: the command line without the program's name; the process's own by default.
    """
    given = list(sys.argv[1:] if words is None else words)
    output = Output(json=wants_json(given))
    try:
        check_start(given)
        run(normalize(given, [name for name, _, _ in COMMANDS], defaults()))
    except JigError as error:
        if debugging():
            raise
        output.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output, `head` say, has seen enough. Nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except Exception as error:  # the last line of defence: a user sees a sentence, never a traceback
        if debugging():
            raise
        output.error(unexpected(error))
        return EXIT_ERROR
    return 0


def check_start(words: Sequence[str]) -> None:
    """Options that stand before the command have their values, and a command behind them.

    Raises:
        UsageError: they have not.
    """
    names = {*(name for name, _, _ in COMMANDS), *GROUPS}
    if wrong := forgotten(words, names, {name for name in names if Path(name).is_file()}):
        message, hint = wrong
        raise UsageError(message, hint=hint)


def run(words: list[str]) -> None:
    """Parse and call.

    Raises:
        UsageError: the command line is wrong.
    """
    app = build_app()
    try:
        check_values(app, words)
        app(words, exit_on_error=False, print_error=False, verbose=False, result_action="return_value")
    except CycloptsError as error:
        raise usage_error(error) from error


def check_values(app: App, words: Sequence[str]) -> None:
    """No option that wants a value has got another option for it; `--prompt=--json` gives it that value all the same.

    Raises:
        UsageError: one has.
    """
    if not any(word.startswith("-") and following.startswith("-") for word, following in pairwise(words)):
        return
    chain, apps, rest = app.parse_commands(words)
    if apps[-1].default_command is None:  # no command is named
        return
    arguments = apps[-1].assemble_argument_collection()
    takers = {name for argument in arguments if argument.parameter.allow_leading_hyphen for name in argument.names}
    options = {name for argument in arguments for name in argument.names}
    if option := without_value(rest, takers, options):
        message, hint = needs_value(" ".join(("jig", *chain)), option)
        raise UsageError(message, hint=f"{hint} A value that is spelled like an option is given with {option}=VALUE.")


def usage_error(error: CycloptsError) -> UsageError:
    """The parser's error in our words, where its own are no sentence."""
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        message, hint = left_over(tuple(error.command_chain or ()), error.unused_tokens)
        return UsageError(message, hint=hint)
    command = " ".join(("jig", *(error.command_chain or ())))
    if isinstance(error, MissingArgumentError) and error.keyword is not None:
        message, hint = needs_value(command, error.keyword)
        return UsageError(message, hint=hint)
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return UsageError(f"{command} needs {error.argument.name}.", hint=f"See `{command} --help`.")
    message = str(error)
    if isinstance(error, CoercionError) and error.token and error.target_type in NUMBERS:
        message = f'{error.token.keyword} must be {NUMBERS[error.target_type]}, not "{error.token.value}".'
    return UsageError(message, hint=f"See `{command} --help`.")


def unexpected(error: Exception) -> JigError:
    """An error that jig did not foresee, in one sentence."""
    hint = "Run it again with JIG_DEBUG=1 to see where, and report it."
    return JigError(f"Something went wrong inside jig: {type(error).__name__}: {error}", hint=hint)


def debugging() -> bool:
    """True where tracebacks are wanted."""
    return os.environ.get("JIG_DEBUG") == "1"
