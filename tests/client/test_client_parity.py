"""The two clients are one: the same names, the same signatures, and every rpc of the contract."""

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import dropnorm as dn
from dropnorm import _calls, aio, client
from dropnorm.v1 import training_service_pb2

PAIRS = [(dn.Client, dn.AsyncClient), (dn.JobHandle, dn.AsyncJobHandle)]
# Context managers are spelled differently in asyncio.
TWINS = {"__enter__": "__aenter__", "__exit__": "__aexit__"}


def source(module: ModuleType) -> str:
    assert module.__file__ is not None
    return Path(module.__file__).read_text(encoding="utf-8")


def members(kind: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in vars(kind).items()
        if inspect.isfunction(member)
    }


def as_sync(text: str) -> str:
    return text.replace("AsyncIterator", "Iterator").replace("Async", "")


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS)
def test_same_names(sync, asynchronous):
    expected = {TWINS.get(name, name) for name in members(sync)}
    assert expected == set(members(asynchronous)) - {"_check_cancelled"}


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS)
def test_same_signatures(sync, asynchronous):
    others = members(asynchronous)
    for name, signature in members(sync).items():
        other = others[TWINS.get(name, name)]
        assert str(signature) == as_sync(str(other)), name


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS)
def test_everything_public_is_documented_and_waits_in_asyncio(sync, asynchronous):
    for name, member in vars(asynchronous).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            assert inspect.getdoc(member), name
            assert inspect.getdoc(vars(sync)[name]), name
            assert (
                inspect.iscoroutinefunction(member)
                or inspect.isasyncgenfunction(member)
                or name == "watch"  # hands out the iterator of _follow
            ), name


def test_every_rpc_is_called_by_both():
    service = training_service_pb2.DESCRIPTOR.services_by_name["TrainingService"]
    for module in (client, aio):
        methods = r'"((?:Create|Get|List|Watch|Cancel|Pause|Resume|Delete|Plan)\w+)"'
        called = set(re.findall(methods, source(_calls) + source(module)))
        assert called == {method.name for method in service.methods}


def test_every_builder_of_a_call_is_used_by_both():
    builders = [set(re.findall(r"_calls\.(\w+)", source(module))) for module in (client, aio)]
    assert builders[0] == builders[1]
