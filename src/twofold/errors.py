"""Errors a user can act on: what is wrong, where, the rule, and what to do about it.

TwofoldError
├── InputError          exit 2   a file, flag or value is not usable
├── EnvironmentLack     exit 3   this machine lacks a package, device or permission
├── NegativeAnswer      exit 1   the question was answered, and the answer is no
└── JobFailed           exit 3   a started process ended badly; nothing it wrote is lost
"""

from __future__ import annotations


class TwofoldError(Exception):
    """Base of every error meant for a user.

    `what` states the fact with its value, `at` names file and field, `help` says what to do.
    """

    exit_code = 2

    def __init__(self, what: str, *, at: str | None = None, help: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.at = at
        self.help = help

    def __str__(self) -> str:
        lines = [self.what]
        if self.at is not None:
            lines.append(f"   at: {self.at}")
        if self.help is not None:
            lines.append(f" help: {self.help}")
        return "\n".join(lines)


class InputError(TwofoldError):
    exit_code = 2


class EnvironmentLack(TwofoldError):
    exit_code = 3


class NegativeAnswer(TwofoldError):
    exit_code = 1


class JobFailed(TwofoldError):
    exit_code = 3
