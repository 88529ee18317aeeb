"""`dropnorm tokens`: makes, lists and revokes tokens, beside a running service and with its settings."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from dropnorm_service import audit, logs
from dropnorm_service.jobs.callers import Role
from dropnorm_service.jobs.errors import ServiceError
from dropnorm_service.jobs.service import utc_now
from dropnorm_service.jobs.tokens import Token, Tokens, id_named_by
from dropnorm_service.redaction import redact
from dropnorm_service.settings import Settings, SettingsError
from dropnorm_service.store import InvalidDatabaseUrl, SqlJobStore, StoreInUse, StoreTooNew

_PROGRAM = "dropnorm tokens"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=3650)
_LONGEST_NAME = 64  # of what is recorded as it was given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0 when it is done, 1 when the store cannot be used, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.load(options.settings)
        logs.configure(settings)
        with _refusals_recorded(options):
            asyncio.run(_run(options, settings))
    except (SettingsError, InvalidDatabaseUrl) as error:
        return _fail(error, 2)
    except (StoreInUse, StoreTooNew) as error:
        return _fail(error, 1)
    except ServiceError as error:
        return _fail(error, 2 if error.problems else 1)
    return 0


def _fail(error: Exception, status: int) -> int:
    print(redact(f"{_PROGRAM}: {error}"), file=sys.stderr)
    return status


class _ForSettings(argparse.Action):
    """Keeps a flag of the service, with its value, for `Settings.load`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        value = [] if values == [] else [str(values)]
        namespace.settings = [*namespace.settings, str(option_string), *value]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    create = _command(commands, "create", "make a token, and show it this once")
    create.add_argument("--user", required=True, help="whom it stands for")
    create.add_argument(
        "--role",
        required=True,
        choices=[str(role) for role in Role],
        help="viewer looks, user makes and steers their own, admin those of everybody",
    )
    create.add_argument(
        "--expires",
        type=_lifetime,
        default=timedelta(days=90),
        metavar="TIME",
        help="after which it lets nobody in, as 90d, 12h or 30m, or never; absent: 90d",
    )
    _command(commands, "list", "show the tokens; those that ended are kept for a month")
    revoke = _command(commands, "revoke", "let a token be valid no more, within seconds")
    revoke.add_argument("id", metavar="ID", help="as `dropnorm tokens list` shows it")
    return parser


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    epilog = (
        "Every flag of `dropnorm serve` is known too, so that the service's own store is found."
    )
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text}.", epilog=epilog, allow_abbrev=False
    )
    command.set_defaults(settings=[])
    command.add_argument("--json", action="store_true", help="print JSON, for scripts")
    for setting, field in Settings.model_fields.items():
        flag = setting.replace("_", "-")
        forms = [f"--{flag}", f"--no-{flag}"] if field.annotation is bool else [f"--{flag}"]
        count = 0 if field.annotation is bool else None
        command.add_argument(*forms, action=_ForSettings, nargs=count, help=argparse.SUPPRESS)
    return command


def _lifetime(text: str) -> timedelta | None:
    if text == "never":
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhdw])", text)
    lifetime = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta.max
    if lifetime > _LONGEST:
        raise argparse.ArgumentTypeError(
            f"give a time up to 3650d, as 90d, 12h or 30m, or never, not {text[:40]!r}"
        )
    return lifetime


async def _run(options: argparse.Namespace, settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"data_dir: {settings.data_dir} cannot be made: {error.strerror}"
        ) from error
    async with await SqlJobStore.open(settings.store_url, beside=True) as store:
        tokens = Tokens(store.tokens, utc_now)
        if options.command == "create":
            await _create(tokens, options)
        elif options.command == "list":
            _show(await tokens.list(), options.json)
        else:
            token = await tokens.revoke(options.id)
            _record_done("RevokeToken", token)
            if options.json:
                print(json.dumps(_facts(token)))
            else:
                print(f"Token {token.id} of {token.caller.user} is revoked.", file=sys.stderr)


async def _create(tokens: Tokens, options: argparse.Namespace) -> None:
    token, bearer = await tokens.create(options.user, Role[options.role.upper()], options.expires)
    _record_done("CreateToken", token)
    if options.json:
        print(json.dumps(_facts(token) | {"token": bearer}))
        return
    until = f"until {token.expire_time:%Y-%m-%d %H:%M} UTC" if token.expire_time else "for ever"
    print(
        f"Token {token.id} lets {token.caller.user} in as {token.caller.role}, {until}. "
        "It is shown this once:",
        file=sys.stderr,
    )
    print(bearer)


def _show(tokens: Sequence[Token], as_json: bool) -> None:
    facts = [_facts(token) for token in tokens]
    if as_json:
        for each in facts:
            print(json.dumps(each))
        return
    rows = [("ID", "USER", "ROLE", "CREATED", "EXPIRES", "STATE")]
    rows += [
        (
            token.id,
            token.caller.user,
            str(token.caller.role),
            _minute(token.create_time),
            _minute(token.expire_time),
            fact["state"],
        )
        for token, fact in zip(tokens, facts, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _minute(time: datetime | None) -> str:
    return "never" if time is None else f"{time:%Y-%m-%d %H:%M}"


def _facts(token: Token) -> dict[str, Any]:
    ended = "revoked" if token.revoke_time else "expired"
    times = {
        name: None if time is None else time.isoformat()
        for name, time in (
            ("create_time", token.create_time),
            ("expire_time", token.expire_time),
            ("revoke_time", token.revoke_time),
        )
    }
    return {
        "id": token.id,
        "user": token.caller.user,
        "role": str(token.caller.role),
        "state": "valid" if token.valid(utc_now()) else ended,
        **times,
    }


def _record_done(action: str, token: Token) -> None:
    caller = token.caller
    _record(action, f"tokens/{token.id}", "OK", of_user=caller.user, of_role=str(caller.role))


@contextmanager
def _refusals_recorded(options: argparse.Namespace) -> Iterator[None]:
    """Have the audit log hear of a change that was not made, and why."""
    try:
        yield
    except Exception as error:
        refused, why = _outcome(error), str(error)
        if options.command == "create":
            of = {"of_user": options.user[:_LONGEST_NAME], "of_role": options.role}
            _record("CreateToken", "", refused, **of, why=why)
        elif options.command == "revoke":
            named = id_named_by(options.id)
            _record("RevokeToken", f"tokens/{named}" if named else "", refused, why=why)
        raise


def _outcome(error: Exception) -> str:
    """The status by which the service itself would refuse."""
    if isinstance(error, SettingsError | InvalidDatabaseUrl):
        return "INVALID_ARGUMENT"
    if isinstance(error, ServiceError):
        return "INVALID_ARGUMENT" if error.problems else "UNAVAILABLE"
    return "FAILED_PRECONDITION" if isinstance(error, StoreInUse | StoreTooNew) else "INTERNAL"


def _record(action: str, resource: str, outcome: str, **more: str) -> None:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # as in a container that knows no names
        user = f"uid {os.getuid()}"
    audit.record(action, resource, outcome, user=user, token="", peer="command line", **more)


if __name__ == "__main__":
    sys.exit(main())
