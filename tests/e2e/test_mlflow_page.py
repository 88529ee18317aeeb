"""What people see: MLflow's page, in a browser, with the runs of real trainings on it.

`SCREENSHOTS=docs/images pytest tests/e2e/test_mlflow_page.py` writes the README's picture.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypedDict, TypeVar

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from tests.ports import free_port
from tests.service.tracking.page import mlflow_server
from tests.service.tracking.story import Story, moved

from dropnorm.results import EpochCompleted, Evaluated, Payload, State
from dropnorm.spec import (
    MLP,
    BatchNorm,
    Data,
    Dropout,
    Optimization,
    Regularization,
    TrainingSpec,
)
from dropnorm_service.store import SqlJobStore
from dropnorm_service.tracking import Tracker, TrackingConfig
from dropnorm_service.tracking.ui import page_url
from dropnorm_service.training import DatasetCache, choose_device, fit, load_data, save_model

T = TypeVar("T")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="needs chromium and chromedriver (Debian: apt install chromium chromium-driver)",
    ),
]

WAYS = {
    "plain": Regularization(),
    "dropout": Regularization(dropout=Dropout(rate=0.2)),
    "batch norm": Regularization(batch_norm=BatchNorm()),
    "both": Regularization(dropout=Dropout(rate=0.2), batch_norm=BatchNorm()),
}
# MLflow's page draws lots; these are told apart by everyone (Okabe & Ito 2008), every time.
COLORS = {"plain": "#5b6470", "dropout": "#0f6fb4", "batch norm": "#e08a00", "both": "#0a8f66"}
SHOWN = "^(generalization_gap|test_accuracy|test_loss|train_eval_loss|validation_(accuracy|loss))$"


class Curve(TypedDict):
    """A line in a chart."""

    x: list[float]
    y: list[float]


class Page:
    """MLflow's page in a browser."""

    def __init__(self, browser: Chrome, server: str) -> None:
        self.browser, self.server = browser, server

    def open(self, path: str) -> None:
        self.browser.get(f"{page_url(self.server).partition('#')[0]}#{path}")

    def wait_for_text(self, *patterns: str) -> None:
        """Wait until the page has text for each regular expression."""
        for pattern in patterns:
            self._wait(partial(self._shows, pattern))

    def _shows(self, pattern: str, _: Chrome) -> bool:
        return re.search(pattern, self.first("body").text) is not None

    def first(self, selector: str) -> WebElement:
        return self._wait(lambda _: self.browser.find_elements(By.CSS_SELECTOR, selector))[0]

    def dismiss_assistant(self) -> None:
        """It opens by itself on a first visit."""
        self.first('[data-component-id="mlflow.assistant.chat_panel.close"]').click()

    def choose_charts(self, names: str) -> None:
        self.first('input[placeholder="Search metric charts"]').send_keys(names)

    def wait_for_curves(self, *, charts: int, runs: int) -> list[list[Curve]]:
        """The curve of each run in each line chart, once so many charts have so many of them."""
        # A run is drawn twice, smoothed and as it is, by the same name.
        script = """
            return [...document.querySelectorAll('.js-plotly-plot')].map(plot => [...new Map(
                plot.data.filter(trace => trace.type === 'scatter')
                    .map(trace => [trace.name, {x: [...trace.x], y: [...trace.y]}])
            ).values()])"""

        def drawn(browser: Chrome) -> list[list[Curve]] | None:
            full = [curves for curves in browser.execute_script(script) if len(curves) == runs]
            return full if len(full) == charts else None

        return self._wait(drawn)

    def picture(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        assert self.browser.save_screenshot(str(path))

    def _wait(self, condition: Callable[[Chrome], T | None]) -> T:
        found = WebDriverWait(self.browser, 120).until(condition)
        assert found is not None
        return found


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    assert CHROMIUM is not None
    options = Options()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1440,1190",
        # A mouse: without one, charts show all their buttons all the time.
        "--blink-settings=primaryHoverType=2,availableHoverTypes=2,"
        "primaryPointerType=4,availablePointerTypes=4",
        f"--user-data-dir={tmp_path / 'chromium'}",
    ):
        options.add_argument(argument)
    browser = Chrome(options=options, service=Service(DRIVER))
    yield browser
    browser.quit()


async def train_and_mirror(data_dir: Path, config: TrackingConfig) -> dict[str, list[float]]:
    """Train each way, mirror it; the validation losses of each by its name."""
    losses = {}
    url = f"sqlite:///{data_dir / 'dropnorm.db'}"
    async with await SqlJobStore.open(url) as store:
        story = Story(store, data_dir / "jobs", now=datetime.now(UTC))
        for name, regularization in WAYS.items():
            losses[name] = await train(
                story, name, regularization, DatasetCache(data_dir / "cache")
            )
        tracker = Tracker(
            config,
            store=store,
            folder_of=story.folder_of,
            record_tracking=story.record_tracking,
        )
        tracker.start()
        await tracker.stop(grace=400)
    return losses


async def train(
    story: Story, name: str, regularization: Regularization, cache: DatasetCache
) -> list[float]:
    spec = TrainingSpec(
        architecture=MLP(hidden=(128, 64)),
        regularization=regularization,
        optimization=Optimization(epochs=30, batch_size=32),
        data=Data(dataset="digits", train_samples=600),
        seed=3,
    )
    job_id = name.replace(" ", "-")
    told: list[Payload] = []
    data = load_data(spec, cache, choose_device(spec.compute), on_event=told.append)
    result = fit(spec, data, on_event=told.append)
    save_model(story.folder_of(job_id) / "model", spec, data, result.model)
    await story.submit(job_id, spec, display_name=name)
    ended = (Evaluated(evaluation=result.evaluation), moved(State.SUCCEEDED))
    await story.tell(job_id, moved(State.RUNNING), *told, *ended)
    return [each.metrics.validation_loss for each in told if isinstance(each, EpochCompleted)]


def test_the_page_shows_runs_parameters_and_curves(browser: Chrome, tmp_path: Path):
    config = TrackingConfig.resolve(tmp_path)
    losses = asyncio.run(train_and_mirror(tmp_path, config))
    client = MlflowClient(config.tracking_uri)
    found = client.get_experiment_by_name("digits")
    assert found is not None
    runs: dict[str, Run] = {
        run.info.run_name: run for run in client.search_runs([found.experiment_id])
    }
    for name, run in runs.items():
        client.set_tag(run.info.run_id, "mlflow.runColor", COLORS[name])
    runs_path = f"/experiments/{found.experiment_id}/runs"
    mode = "workflowType=machine_learning"

    with mlflow_server(config, free_port(), tmp_path / "server.log") as server:
        page = Page(browser, server)
        page.open(f"{runs_path}?compareRunsMode=CHART&{mode}")
        page.dismiss_assistant()
        page.choose_charts(SHOWN)
        page.wait_for_text("generalization_gap", "validation_accuracy", *WAYS)
        page.wait_for_curves(charts=3, runs=len(WAYS))
        page.picture(Path(os.environ.get("SCREENSHOTS", tmp_path)) / "mlflow.png")

        run = runs["dropout"]
        page.open(f"{runs_path}/{run.info.run_id}?{mode}")
        page.wait_for_text("Finished", r"regularization\.dropout\.rate\s+0\.2\b")

        page.open(f"{runs_path}/{run.info.run_id}/model-metrics?{mode}")
        page.choose_charts("^validation_loss$")
        [[curve]] = page.wait_for_curves(charts=1, runs=1)
        assert curve["x"] == list(range(1, 31))
        assert curve["y"] == pytest.approx(losses["dropout"])
