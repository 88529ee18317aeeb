"""The `dropnorm` command."""

import sys

_NEED_THE_SERVICE = ("serve", "tokens", "ui", "demo")


def main() -> None:
    """Run the command line of this process."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
        import yaml  # noqa: F401
    except ImportError as error:
        extra = "service" if sys.argv[1:2] and sys.argv[1] in _NEED_THE_SERVICE else "cli"
        print(
            f"The dropnorm command needs {error.name}, which is not installed: pip install 'dropnorm[{extra}]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from error
    from dropnorm.cli.app import run

    run()
