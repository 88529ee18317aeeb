"""The `dropnorm` command."""

import sys


def main() -> None:
    """Run the command line of this process."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
        import yaml  # noqa: F401
    except ImportError as error:
        print(
            f"The dropnorm command needs {error.name}, which is not installed: pip install 'dropnorm[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from error
    from dropnorm.cli.app import run

    run()
