"""What every task of the menu shares: errors that explain themselves, exit codes.

Imported by tasks.py on every `inv --list`, so it imports nothing heavy.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from invoke import Exit, task
from invoke.exceptions import ParseError
from invoke.program import Program


def verb(*arguments: Any, **options: Any) -> Any:
    """Declare a task that ends with the contracted exit code.

    Takes what `invoke.task` takes. An `OpsError` that reaches the task is printed
    once, as JSON when the task was asked for JSON, and becomes its exit code.
    """

    def declare(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def run(context: Any, *args: Any, **kwargs: Any) -> None:
            try:
                function(context, *args, **kwargs)
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                raise Exit(code=130) from None
            except Exception as error:
                code = _explain(
                    error,
                    kwargs.get("env") or "local",
                    as_json=bool(kwargs.get("json")),
                )
                if code is None:
                    raise
                raise Exit(code=code) from None
            finally:
                # Only a command that had something to tell has loaded it.
                outbox = sys.modules.get("ops.alerts.outbox")
                if outbox is not None:
                    outbox.flush()

        return task(run, **options)

    if len(arguments) == 1 and not options and callable(arguments[0]):
        return declare(arguments[0])
    return declare


def _explain(error: Exception, environment: str, *, as_json: bool) -> int | None:
    """Print an error the way its reader wants it; None means it is a defect."""
    from ops import errors, report

    if not isinstance(error, errors.OpsError):
        return None
    error.next = errors.aimed(error.next, environment)
    report.error(error, as_json=as_json)
    return error.code


def keep_bytecode() -> None:
    """Keep byte-code where Python is told not to write it beside its sources.

    A command that compiles all that it imports takes twice as long. What is imported
    from here on goes to our cache folder. Invoke, and what it needs, is imported before
    tasks.py is read, so its byte-code can only lie beside it, in the checkout's own
    environment.
    """
    if not sys.dont_write_bytecode or sys.pycache_prefix is not None:
        return
    from ops import folders

    sys.pycache_prefix = str(folders.bytecode())
    sys.dont_write_bytecode = False
    environment = os.path.join(os.path.dirname(os.path.dirname(__file__)), ".venv", "")
    early = {
        os.path.dirname(module.__file__)
        for module in list(sys.modules.values())
        if (getattr(module, "__file__", None) or "").startswith(environment)
    }
    for folder in early:
        known = os.path.isdir(os.path.join(folder, "__pycache__"))
        if not known and os.path.basename(folder) != "site-packages":
            _compile(folder)


def _compile(folder: str) -> None:
    """Compile a folder of modules beside its sources, where that is possible."""
    import compileall

    prefix, sys.pycache_prefix = sys.pycache_prefix, None
    try:
        compileall.compile_dir(folder, maxlevels=0, quiet=2)
    finally:
        sys.pycache_prefix = prefix


def contract_usage_errors() -> None:
    """Make Invoke end with 2, and a suggestion, on a task or flag it does not know.

    Invoke ends with 1 there, which in our contract means that a deploy failed.
    tasks.py is read before the command line is parsed, so this is early enough.
    """
    parse = Program.parse_tasks

    def parse_tasks(self: Program) -> None:
        words = self.core.unparsed
        known = self.collection.task_names
        if words[1:2] in (["--help"], ["-h"]) and words[0] in known:
            # A task that takes a word without a flag would take this one.
            self.args.help.value = words[0]
            del words[:2]
        try:
            parse(self)
        except ParseError as error:
            print(f"usage: {error}{_suggestion(self, error)}", file=sys.stderr)
            raise Exit(code=2) from None
        except ValueError as error:
            # A flag that takes a number was given something else.
            print(f"usage: {error}\n  next: inv TASK --help", file=sys.stderr)
            raise Exit(code=2) from None

    Program.parse_tasks = parse_tasks
    show = Program.parse_cleanup

    def parse_cleanup(self: Program) -> None:
        try:
            try:
                show(self)
            finally:
                # Else Python writes what is left at its end, where nobody catches.
                sys.stdout.flush()
        except BrokenPipeError:
            # `inv --list | head`, `inv deploy --help | head`: it has what it wanted.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Exit from None

    Program.parse_cleanup = parse_cleanup


def _suggestion(program: Program, error: ParseError) -> str:
    """Return the closest task or flag to the word that was not understood."""
    import difflib

    words = [word.strip("'") for word in str(error).split() if word.startswith("'")]
    names = list(program.collection.task_names)
    context = getattr(error, "context", None)
    if context is not None and context.name:
        names += [flag for flag in context.flags if flag.startswith("--")]
    for word in words:
        close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
        if close:
            return f"\n  did you mean: {close[0]}"
    return "\n  next: inv --list"
