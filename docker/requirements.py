"""Print the requirements of a project's extras, one a line: `requirements.py pyproject.toml service tracing`.

pip installs a project's libraries only together with the project. An image has them in a layer of their own, which
stays as it is while sources and tools change.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def main() -> None:
    path, *extras = sys.argv[1:]
    project = tomllib.loads(Path(path).read_text(encoding="utf-8"))["project"]
    found = [*project["dependencies"], *requirements(project, extras)]
    print("\n".join(sorted(set(found))))


def requirements(project: Mapping[str, Any], extras: Sequence[str]) -> Iterator[str]:
    """What extras ask for, with what the project's own extras among them ask for."""
    own = re.compile(rf"{re.escape(project['name'])}\[(.+)\]")
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            if named := own.fullmatch(requirement):
                yield from requirements(project, re.split(r"\s*,\s*", named[1]))
            else:
                yield requirement


if __name__ == "__main__":
    main()
