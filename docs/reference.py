"""Write the reference tables of README.md from the models; with --check, only say whether they are current.

A field's default and its docstring, limits and all, stand in the models alone. This puts them between the
`<!-- NAME: made by docs/reference.py -->` and `<!-- end -->` lines of the page.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dropnorm.spec import (
    Architecture,
    Averaging,
    BatchSizeSchedule,
    DropoutSchedule,
    Layer,
    Optimizer,
    Schedule,
    TrainingSpec,
)
from dropnorm_service.settings import Settings

README = Path(__file__).parents[1] / "README.md"

# Parts of a spec that are one of several kinds, each with a table of its own; what people call them.
UNIONS: Mapping[str, Any] = {
    "architecture": Architecture,
    "layer": Layer,
    "dropout.schedule": DropoutSchedule,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "batch_size_schedule": BatchSizeSchedule,
    "averaging": Averaging,
}

Row = Sequence[str]


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the reference tables of README.md.")
    parser.add_argument("--check", action="store_true", help="change nothing, say what differs")
    options = parser.parse_args()

    text = README.read_text(encoding="utf-8")
    written = text
    for name, make in SECTIONS.items():
        written = replace(written, name, make())
    if not options.check:
        README.write_text(written, encoding="utf-8")
    elif written != text:
        print("README.md's reference is not what the models say. Run `make reference`.")
        return 1
    return 0


def replace(page: str, name: str, content: str) -> str:
    """The page with the content of one section."""
    begin = f"<!-- {name}: made by docs/reference.py -->"
    pattern = re.compile(rf"{re.escape(begin)}\n.*?<!-- end -->\n", re.DOTALL)
    if not pattern.search(page):
        sys.exit(f"README.md has no section that begins with {begin} and ends with <!-- end -->")
    return pattern.sub(lambda _: f"{begin}\n\n{content}\n<!-- end -->\n", page)


def settings() -> str:
    """Every setting as flag, variable and default."""
    rows = []
    for name, field in Settings.model_fields.items():
        flag = f"`--{name.replace('_', '-')}`"
        if field.annotation is bool:
            flag += f", `--no-{name.replace('_', '-')}`"
        rows.append((flag, f"`DROPNORM_{name.upper()}`", default(field), meaning(field)))
    return table(("Flag", "Environment", "Default", "Meaning"), rows)


def spec() -> str:
    """Every field of a TrainingSpec, a table for each part and each kind."""
    parts = [
        section("TrainingSpec", TrainingSpec, top(TrainingSpec)),
        *union("architecture"),
        *union("layer"),
    ]
    for name, field in TrainingSpec.model_fields.items():
        if (model := nested(field)) is not None:
            parts.append(section(f"`{name}`", model, list(fields(model))))
        if name == "regularization":
            parts += union("dropout.schedule")
        if name == "optimization":
            parts += [*union("optimizer"), *union("schedule")]
            parts += [*union("batch_size_schedule"), *union("averaging")]
    return "\n".join(parts)


SECTIONS: Mapping[str, Callable[[], str]] = {"settings": settings, "spec": spec}


def union(name: str) -> Iterator[str]:
    """A table for each kind of a part."""
    for model in get_args(get_args(UNIONS[name])[0]):
        kind = model.model_fields["kind"].default
        yield section(f"{name}, `kind: {kind}`", model, list(fields(model)))


def section(title: str, model: type[BaseModel], rows: Sequence[Row]) -> str:
    """A heading that opens, so that the page stays short, with a model's docstring and its fields."""
    text = plain(model.__doc__ or "")
    body = f"\n{table(('Field', 'Default', 'Meaning'), rows)}" if rows else ""
    return f"<details><summary><b>{html(title)}</b></summary>\n\n{text}\n{body}\n</details>\n"


def top(model: type[BaseModel]) -> list[Row]:
    """A model's own fields, whatever they are made of."""
    return [
        (f"`{name}`", default(field), meaning(field)) for name, field in model.model_fields.items()
    ]


def fields(model: type[BaseModel], path: str = "") -> Iterator[Row]:
    """A model's fields by dotted path: those of a part that is one plain model stand for it."""
    for name, field in model.model_fields.items():
        if name == "kind":
            continue
        part = nested(field)
        if part is None:
            yield f"`{path}{name}`", default(field), meaning(field)
        else:
            if field.default is None:
                yield f"`{path}{name}`", "absent", meaning(field)
            yield from fields(part, f"{path}{name}.")


def nested(field: FieldInfo) -> type[BaseModel] | None:
    """The model a field holds, if it holds one and no other."""
    found = [
        each
        for each in (field.annotation, *get_args(field.annotation))
        if isinstance(each, type) and issubclass(each, BaseModel)
    ]
    return found[0] if len(found) == 1 else None


def default(field: FieldInfo) -> str:
    """A field's default as a file would say it; `absent` where its docstring says what that means."""
    if field.is_required():
        return "required"
    value = field.default
    if value is None or field.default_factory is not None:
        return "absent"
    if isinstance(value, BaseModel):
        kind = getattr(value, "kind", None)
        return "see below" if kind is None else f"`{kind}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`".replace("e-0", "e-")
    return f"`{value}`" if value not in ({}, ()) else "empty"


def meaning(field: FieldInfo) -> str:
    """A field's docstring, and its choices where the type lists them."""
    text = plain(field.description or "")
    choices = [str(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    unnamed = [choice for choice in choices if f"`{choice}`" not in text]
    if unnamed:
        text += " One of " + ", ".join(f"`{choice}`" for choice in choices) + "."
    return text


def plain(text: str) -> str:
    """Text on one line, as a table needs it."""
    return " ".join(text.split()).replace("|", "\\|")


def html(title: str) -> str:
    return re.sub(r"`(.+?)`", r"<code>\1</code>", title)


def table(header: Row, rows: Sequence[Row]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
