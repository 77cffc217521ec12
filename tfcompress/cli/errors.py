"""What a command says when it cannot do its work, and with which exit code."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["BadInput", "CheckFailed", "Commands"]


class _Failure(click.ClickException):
    """An error whose message may hold names from the user's files."""

    def format_message(self) -> str:
        """Return the message, without characters that a terminal would obey."""
        from tfcompress.model.tables import printable  # not at the top: `--help` is instant

        return printable(super().format_message())


class CheckFailed(_Failure):
    """The command did its work, and the answer is no."""

    exit_code = 1


class BadInput(_Failure):
    """What the user gave cannot be worked with."""

    exit_code = 2


class Commands(click.Group):
    """Reports errors that are meant for the user in one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click knows what to do when `| head` has seen enough
        except Exception as error:
            from tfcompress import edge  # not at the top: `--help` needs no NumPy

            if isinstance(error, edge.DelegateMismatch):
                raise CheckFailed(str(error)) from error
            expected = (
                ValueError,
                OSError,
                ImportError,
                edge.DelegateUnavailable,
                edge.ModelRefused,
            )
            if isinstance(error, expected):
                raise BadInput(str(error)) from error
            raise
