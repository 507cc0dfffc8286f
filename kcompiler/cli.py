"""The command line: ``kcompiler compile | inspect | explain | export | tune | check | bench | serve | demo``.

Exit codes: 0 done; 1 a check failed; 2 usage; 3 the model, image, bundle or machine is unsuitable; 130 interrupted (129 by
SIGHUP, 143 by SIGTERM); 141 the reader of standard output went away.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

from kcompiler.commands import bench, check, compile, demo, explain, export, inspect, tune
from kcompiler.commands.ending import INTERRUPTED, ended_by_signals
from kcompiler.commands.limits import limited
from kcompiler.commands.streams import tolerant
from kcompiler.commands.system import refused
from kcompiler.runtime.errors import KCompilerError
from kcompiler.runtime.foreign import interrupt_behind
from kcompiler.serving import command as serve

app = typer.Typer(
    name="kcompiler",
    help="Occlusion heat maps of ONNX image models: exact, at a fraction of the work of full inference.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Wraps a command: a :class:`KCompilerError`, or what the system refuses, becomes a line on stderr and its exit code."""

    @functools.wraps(command)
    def run(*arguments: object, **options: object) -> None:
        try:
            command(*arguments, **options)
        except (KeyboardInterrupt, Exception) as error:
            if (interrupt := interrupt_behind(error)) is not None:
                print(f"interrupted{f': {interrupt}' if str(interrupt) else ''}", file=sys.stderr)
                raise typer.Exit(INTERRUPTED) from error
            told = error if isinstance(error, KCompilerError) else refused(error)
            if told is None:
                raise
            print(f"error: {told}", file=sys.stderr)
            raise typer.Exit(told.exit_code) from error

    return run


class OptionalAddress(TyperCommand):
    """A command whose option ``--ray`` may stand without an address: last, or with another option behind it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        following = [*args[1:], "-"]
        given = [
            f"{arg}=auto" if arg == "--ray" and after.startswith("-") else arg for arg, after in zip(args, following, strict=True)
        ]
        return super().parse_args(ctx, given)


COMMANDS: dict[str, Callable[..., None]] = {
    "compile": compile.compile_model,
    "inspect": inspect.inspect_model,
    "explain": limited(explain.explain_images),
    "export": export.export_model,
    "check": limited(check.check_bundle),
    "bench": bench.bench_models,
    "tune": tune.tune_bundle,
    "serve": serve.serve_page,
    "demo": demo.run_demo,
}
for _name, _command in COMMANDS.items():
    app.command(_name, cls=OptionalAddress)(guarded(_command))


def main() -> None:
    """Entry point of the ``kcompiler`` script."""
    with ended_by_signals() as ending, tolerant():
        try:
            app()
        except SystemExit as ended:
            raise SystemExit(ending.code if ended.code == INTERRUPTED else ended.code) from None


if __name__ == "__main__":
    main()
