"""The two clients are one: the same names, the same signatures, and every rpc of the contract."""

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from tests.contract import METHODS

import dropnorm as dn
from dropnorm import _calls, _model_calls, aio, client, job_handle, models
from dropnorm.datasets import AsyncDatasets, Datasets, _requests
from dropnorm.datasets import aio as sets_aio
from dropnorm.datasets import client as sets

PAIRS = [
    (dn.Client, dn.AsyncClient),
    (dn.JobHandle, dn.AsyncJobHandle),
    (models.Models, models.AsyncModels),
    (Datasets, AsyncDatasets),
]
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
    text = re.sub(r"AsyncGenerator\[(.+?), None\]", r"Generator[\1, None, None]", text)
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


def test_every_rpc_is_called():
    sources = map(source, (_calls, _model_calls, _requests, client, job_handle, aio))
    called = set(re.findall(r'"([A-Z][a-z]+[A-Za-z]*)"', "".join(sources)))
    assert called >= {method.name for method in METHODS}


def test_every_builder_of_a_call_about_models_is_used_by_both():
    sync, asynchronous = (
        re.findall(r"_model_calls\.(\w+)", half)
        for half in source(models).split("class AsyncModels")
    )
    assert sync
    assert sync == asynchronous


def test_every_builder_of_a_call_about_data_sets_is_used_by_both():
    used = [set(re.findall(r"_requests\.(\w+)", source(module))) for module in (sets, sets_aio)]
    assert used[0] == used[1]


def test_every_builder_of_a_call_is_used_by_both():
    sync = "".join(map(source, (client, job_handle)))
    builders = [set(re.findall(r"_calls\.(\w+)", half)) for half in (sync, source(aio))]
    assert builders[0] == builders[1]
