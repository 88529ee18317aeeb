"""Options that many commands take."""

from __future__ import annotations

from typing import Annotated

import typer

from dropnorm._calls import DEFAULT_ADDRESS

__all__ = ["DEFAULT_ADDRESS", "Address", "Json"]

Address = Annotated[
    str, typer.Option(envvar="DROPNORM_ADDRESS", metavar="HOST:PORT", help="The service.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
