"""How fast training goes, all running jobs together."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dropnorm.results import CheckpointWritten, EpochCompleted, Event, Progressed

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_BYTES = tuple(2.0**exponent for exponent in range(14, 35, 2))


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
        self._checkpoint_seconds = Histogram(
            "dropnorm_checkpoint_seconds",
            "Seconds from the copy of a training's state until it was on the disk; training goes on meanwhile.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._checkpoint_bytes = Histogram(
            "dropnorm_checkpoint_bytes",
            "Bytes that checkpoints take on the disk.",
            buckets=_BYTES,
            registry=registry,
        )
        # Of running jobs alone, so that these are as many as there are slots.
        self._reached: dict[str, int] = {}
        self._speeds: dict[str, float] = {}

    def heard(self, job_id: str, event: Event) -> None:
        """Take note of what an attempt says."""
        match event.payload:
            case Progressed(progress=progress):
                self._reach(job_id, progress.step)
            case EpochCompleted(system=None):
                pass  # an attempt before did it
            case EpochCompleted(metrics=metrics):
                self._reach(job_id, metrics.step)
                self._epochs.inc()
                self._samples.inc(metrics.samples_per_second * metrics.seconds)
                self._speeds[job_id] = metrics.samples_per_second
            case CheckpointWritten(step=step, seconds=None):
                self._reached[job_id] = step  # here the attempt goes on
            case CheckpointWritten(seconds=float(seconds), size_bytes=int(size)):
                self._checkpoints.inc()
                self._checkpoint_seconds.observe(seconds)
                self._checkpoint_bytes.observe(size)

    def rest(self, job_id: str) -> None:
        """No attempt of the job runs any more."""
        self._reached.pop(job_id, None)
        self._speeds.pop(job_id, None)

    def _reach(self, job_id: str, step: int) -> None:
        # The service may have begun in the middle of an attempt, so the first word of steps counts for none.
        self._steps.inc(max(0, step - self._reached.get(job_id, step)))
        self._reached[job_id] = max(step, self._reached.get(job_id, 0))
