"""How fast training goes, all running jobs together."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from dropnorm.results import CheckpointWritten, EpochCompleted, Event, Progressed


class TrainingMetrics:
    """Adds up what running jobs tell of their progress."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._steps = Counter(
            "dropnorm_training_steps",
            "Optimizer steps done by all jobs together; its rate is steps per second.",
            registry=registry,
        )
        self._samples = Counter(
            "dropnorm_training_samples",
            "Training samples gone through by all jobs together, counted at the end of each epoch.",
            registry=registry,
        )
        self._epochs = Counter("dropnorm_training_epochs", "Epochs finished.", registry=registry)
        self._speed = Gauge(
            "dropnorm_training_samples_per_second",
            "Samples per second of the running jobs together, each as fast as in its last epoch.",
            registry=registry,
        )
        self._speed.set_function(lambda: sum(self._speeds.values()))
        self._checkpoints = Counter(
            "dropnorm_checkpoints", "Checkpoints written.", registry=registry
        )
        # Of running jobs alone, so that these are as many as there are slots.
        self._reached: dict[str, int] = {}
        self._speeds: dict[str, float] = {}

    def heard(self, job_id: str, event: Event) -> None:
        """Take note of what an attempt says."""
        match event.payload:
            case Progressed(progress=progress):
                self._reach(job_id, progress.step)
            case EpochCompleted(metrics=metrics):
                self._reach(job_id, metrics.step)
                self._epochs.inc()
                self._samples.inc(metrics.samples_per_second * metrics.seconds)
                self._speeds[job_id] = metrics.samples_per_second
            case CheckpointWritten():
                self._checkpoints.inc()

    def rest(self, job_id: str) -> None:
        """No attempt of the job runs any more."""
        self._reached.pop(job_id, None)
        self._speeds.pop(job_id, None)

    def _reach(self, job_id: str, step: int) -> None:
        # An attempt begins where its checkpoint was, so its first word of steps counts for none.
        self._steps.inc(max(0, step - self._reached.get(job_id, step)))
        self._reached[job_id] = max(step, self._reached.get(job_id, 0))
