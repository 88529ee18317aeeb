"""Changes of training samples against all that they may come to, made one by one, and against their formulas."""

from itertools import product
from typing import Any

import pytest
import torch
from tests.service.training.made import CPU, classification, regression, split_of
from tests.service.training.shorthand import listed, mlp, problems, summary
from torch import Tensor
from torch.nn import functional as F

from dropnorm import spec as dn
from dropnorm.results import SequenceSummary
from dropnorm.spec import layers
from dropnorm_service.training import fit, plan
from dropnorm_service.training.augmentation import augmentation_of
from dropnorm_service.training.augmentation.geometry import Crops, Displacement, resampled
from dropnorm_service.training.augmentation.limits import unsuitable
from dropnorm_service.training.augmentation.mixing import Mixing, boxes
from dropnorm_service.training.objectives import objective_of

BLACK = torch.tensor([-3.0, -7.0]).view(1, 2, 1, 1).expand(1, 2, 4, 5)
PADDING = {"edge": "replicate", "reflect": "reflect"}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def image() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(1, 2, 4, 5)


def displaced(one: Tensor, pixels: int, fill: str) -> Tensor:
    """Every shift of an image, as a crop of the padded one (He et al. 2015)."""
    around = (pixels,) * 4
    if fill == "black":
        padded = BLACK[..., :1, :1].expand(1, 2, 4 + 2 * pixels, 5 + 2 * pixels).clone()
        padded[..., pixels : pixels + 4, pixels : pixels + 5] = one
    else:
        padded = F.pad(one, around, mode=PADDING[fill])
    starts = range(2 * pixels + 1)
    return torch.cat([padded[..., i : i + 4, j : j + 5] for i, j in product(starts, starts)])


def check_even(found: Tensor, candidates: Tensor) -> None:
    """Each of the images found is a candidate, and each candidate turns up about as often as the others."""
    same = (found.unsqueeze(1) == candidates.unsqueeze(0)).flatten(2).all(dim=2)
    assert same.any(dim=1).all()
    shares = same.double().mean(dim=0)
    assert (shares > 0.5 / len(candidates)).all()
    assert (shares < 2.0 / len(candidates)).all()


@pytest.mark.parametrize("fill", ["black", "edge", "reflect"])
def test_shifts_are_crops_of_the_padded_image(fill: Any) -> None:
    change = Displacement(dn.Augmentation(shift=dn.Shift(pixels=2, fill=fill)), BLACK)
    one = image()
    check_even(change(one.expand(5000, -1, -1, -1)), displaced(one, 2, fill))


def test_flips_and_shifts_together() -> None:
    settings = dn.Augmentation(
        horizontal_flip=0.5, vertical_flip=0.5, shift=dn.Shift(pixels=1, fill="reflect")
    )
    shifted = displaced(image(), 1, "reflect")
    flipped = [shifted, shifted.flip(2), shifted.flip(3), shifted.flip(2, 3)]
    found = Displacement(settings, BLACK)(image().expand(8000, -1, -1, -1))
    check_even(found, torch.cat(flipped))


@pytest.mark.parametrize(("name", "axis"), [("horizontal_flip", 3), ("vertical_flip", 2)])
def test_flips_have_their_probability(name: str, axis: int) -> None:
    one = image()
    change = Displacement(dn.Augmentation.model_validate({name: 0.25}), BLACK)
    found = change(one.expand(4000, -1, -1, -1))
    flipped = (found == one.flip(axis)).flatten(1).all(dim=1)
    assert (found[~flipped] == one).all()
    assert flipped.double().mean().item() == pytest.approx(0.25, abs=0.03)


def test_black_is_the_raw_value_0() -> None:
    spec = listed(
        layers.Flatten(),
        data=dn.Data(dataset="made", augmentation=dn.Augmentation(shift=dn.Shift(pixels=3))),
    )
    data = split_of(spec, classification(2, 4, 4))
    augment = augmentation_of(spec, data)
    assert augment is not None
    assert data.inputs is not None
    raw = data.inputs.undo(augment(data.train.x, data.train.y)[0])
    before = data.inputs.undo(data.train.x)
    assert raw.abs().lt(1e-5).float().mean() > 0.3
    assert before.abs().lt(1e-5).float().mean() == 0


def test_a_piece_is_enlarged_as_by_interpolation() -> None:
    x = torch.randn(3, 2, 8, 12)
    whole, middle = torch.ones(2, 3), torch.zeros(2, 3)
    torch.testing.assert_close(resampled(x, whole, middle), x)
    # Columns 3 to 9 and rows 4 to 8: half of each side, around column 6 of 12 and row 6 of 8.
    centre = torch.tensor([[0.0] * 3, [0.5] * 3])
    found = resampled(x, whole / 2, centre)
    enlarged = F.interpolate(x[:, :, 4:, 3:9], scale_factor=2, mode="bilinear", align_corners=False)
    # At the piece's own edge its neighbours count, where interpolation repeats the edge; at the image's it does too.
    torch.testing.assert_close(found[:, :, 1:, 1:-1], enlarged[:, :, 1:, 1:-1])


def test_pieces_have_areas_and_ratios_within_the_limits() -> None:
    columns = torch.arange(32.0).expand(32, 32)
    x = torch.stack([columns, columns.T]).expand(4000, 2, 32, 32)
    found = Crops(dn.Crop(min_area=0.25, max_aspect=1.5))(x)
    width = found[:, 0, 16, 17] - found[:, 0, 16, 16]
    height = found[:, 1, 17, 16] - found[:, 1, 16, 16]
    area, ratio, cut = width * height, width / height, (width > 0.9999) | (height > 0.9999)
    assert area[~cut].min() > 0.25 - 1e-3
    assert area[~cut].min() < 0.27
    assert ratio.max() < 1.5 + 1e-3
    assert ratio.max() > 1.45
    assert 1 / ratio.min() < 1.5 + 1e-3
    assert max(width.max(), height.max()) <= 1 + 1e-4
    # Nothing from outside: a piece lies within the image, wherever it is.
    left, right = found[:, 0, 16, 0], found[:, 0, 16, -1]
    assert left.min() >= 0
    assert right.max() <= 31
    assert left.max() > 10
    assert right.min() < 21


def told(batch: int, *size: int) -> tuple[Tensor, Tensor]:
    """Samples that tell who they are, one channel for each, and their classes likewise."""
    x = torch.eye(batch).view(batch, batch, *(1,) * len(size)).expand(batch, batch, *size)
    return x.clone(), torch.arange(batch)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixup_mixes_targets_as_it_mixes_samples(alpha: float) -> None:
    batch = 600
    x, y = told(batch)
    mixed, shares = Mixing(alpha, None, batch, CPU)(x, y)
    torch.testing.assert_close(mixed, shares)
    own = shares.diagonal()
    assert shares.sum(dim=0).sum() == pytest.approx(batch, rel=1e-5)
    assert ((shares > 0).sum(dim=1) <= 2).all()
    # Beta(alpha, alpha): mean 1/2, variance 1 / (4 (2 alpha + 1)); a fixed point of the permutation keeps all.
    assert own.mean().item() == pytest.approx(0.5, abs=0.06)
    assert own.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.25)


def test_cutmix_counts_the_pixels() -> None:
    batch = 300
    x, y = told(batch, 6, 7)
    mixed, shares = Mixing(None, 1.0, batch, CPU)(x, y)
    torch.testing.assert_close(mixed.mean(dim=(2, 3)), shares)
    assert set(mixed.unique().tolist()) == {0.0, 1.0}
    assert 0.1 < (shares.diagonal() < 1.0).float().mean() < 1.0


def test_of_both_each_sample_undergoes_one() -> None:
    batch = 400
    x, y = told(batch, 6, 6)
    mixed, shares = Mixing(1.0, 1.0, batch, CPU)(x, y)
    torch.testing.assert_close(mixed.mean(dim=(2, 3)), shares)
    own = mixed[torch.arange(batch), torch.arange(batch)].flatten(1)
    blended = (own.amax(dim=1) == own.amin(dim=1)) & (own[:, 0] < 1.0) & (own[:, 0] > 0.0)
    assert blended.float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_boxes_are_rectangles_of_their_share_cut_off_at_the_edges() -> None:
    kept = torch.linspace(0.0, 1.0, 500)
    found = boxes(kept, 20, 30)
    rows, columns = found.any(dim=2), found.any(dim=1)
    assert torch.equal(found, rows.unsqueeze(2) & columns.unsqueeze(1))
    for share, row, column in zip(kept.tolist(), rows, columns, strict=True):
        side = (1.0 - share) ** 0.5
        if side * 20 < 1.01:  # less than a pixel high
            assert not row.any() or side * 20 > 0.99
            continue
        for places, size in ((row, 20), (column, 30)):
            where = places.nonzero().flatten().tolist()
            assert where == list(range(where[0], where[-1] + 1)) if where else True
            assert len(where) <= side * size + 1e-4
            cut = bool(where) and (where[0] == 0 or where[-1] == size - 1)
            assert cut or len(where) > side * size - 1.01
    assert not found[-1].any()


def test_regression_mixes_numbers() -> None:
    x = torch.eye(50)
    mixed, targets = Mixing(1.0, None, None, CPU)(x, x.flip(1).clone())
    torch.testing.assert_close(targets, mixed.flip(1))


def test_the_loss_of_mixed_targets_is_the_mean_of_both_losses() -> None:
    """As the code of Zhang et al. 2017 has it: `share * loss(y) + (1 - share) * loss(y of the partner)`."""
    for smoothing in (None, 0.1):
        regularization = dn.Regularization(label_smoothing=smoothing)
        spec = mlp(4, regularization=regularization)
        objective: Any = objective_of(spec, split_of(spec, classification(6)))
        logits, share = torch.randn(9, 3), torch.rand(9)
        one, other = torch.randint(3, (9,)), torch.randint(3, (9,))
        hot = F.one_hot(one, 3) * share[:, None] + F.one_hot(other, 3) * (1 - share[:, None])
        parts = (
            F.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing or 0.0)
            for y in (one, other)
        )
        first, second = parts
        expected = (share * first + (1 - share) * second).mean()
        torch.testing.assert_close(objective.loss(logits, hot), expected)


def test_noise_has_its_deviation_on_the_scale_of_the_network() -> None:
    augmentation = dn.Augmentation(noise_std=0.3)
    spec = mlp(4, data=dn.Data(dataset="made", augmentation=augmentation))
    data = split_of(spec, classification(6))
    augment = augmentation_of(spec, data)
    assert augment is not None
    x, y = augment(data.train.x, data.train.y)
    assert (x - data.train.x).std().item() == pytest.approx(0.3, rel=0.1)
    assert torch.equal(y, data.train.y)


def test_without_settings_nothing_is_changed() -> None:
    spec = mlp(4)
    assert augmentation_of(spec, split_of(spec, classification(6))) is None


EVERYTHING = dn.Augmentation(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    shift=dn.Shift(pixels=2, fill="edge"),
    crop=dn.Crop(),
    mixup_alpha=0.4,
    cutmix_alpha=1.0,
    noise_std=0.2,
)


def test_a_training_changes_its_own_samples_and_no_others() -> None:
    def trained(augmentation: dn.Augmentation | None) -> Any:
        spec = listed(
            layers.Conv(channels=4),
            layers.BatchNorm(),
            layers.Activation(),
            layers.Flatten(),
            data=dn.Data(dataset="made", augmentation=augmentation),
            optimization=dn.Optimization(
                epochs=2, batch_size=48, micro_batch_size=16, averaging=dn.SWA(start_epoch=1)
            ),
            evaluation=dn.EvaluationSettings(recalibrate_batch_norm="dropout_off"),
            compute=dn.Compute(deterministic=True),
        )
        data = split_of(spec, classification(2, 6, 6))
        before = data.train.x.clone()
        result = fit(spec, data)
        assert torch.equal(data.train.x, before)
        with torch.no_grad():
            loss = F.cross_entropy(result.model(data.validation.x), data.validation.y)
        assert result.evaluation.validation.loss == pytest.approx(loss.item(), rel=1e-5)
        return result.evaluation

    plain, changed = trained(None), trained(EVERYTHING)
    assert changed.history[0].train_loss != plain.history[0].train_loss
    # Mixed targets are never met exactly.
    assert changed.history[-1].train_loss > 1.2 * plain.history[-1].train_loss


def test_auxiliary_heads_and_regression_and_generators_take_them() -> None:
    google = dn.GoogLeNet(width=0.05)
    for spec, dataset in (
        (mlp(4), regression(1, 6, 6)),
        (
            listed(layers.Flatten()).model_copy(update={"architecture": google}),
            classification(1, 8, 8),
        ),
    ):
        augmentation = dn.Augmentation(mixup_alpha=0.5, horizontal_flip=0.5, noise_std=0.1)
        changed = spec.model_copy(
            update={
                "data": dn.Data(dataset="made", augmentation=augmentation),
                "optimization": dn.Optimization(epochs=1, batch_size=64),
            }
        )
        assert fit(changed, split_of(changed, dataset)).evaluation.history


@pytest.mark.parametrize(
    ("dataset", "wrong"),
    [
        (summary(6), {"horizontal_flip", "vertical_flip", "shift", "crop", "cutmix_alpha"}),
        (summary(1, 8, 8), set()),
        (summary(1, 8, 8, task="regression"), {"cutmix_alpha"}),
        (summary(1, 8, 8, task="generation"), {"cutmix_alpha", "mixup_alpha", "noise_std"}),
        (
            summary(
                6, sequences=SequenceSummary(vocabulary=9, target_vocabulary=0, target_length=0)
            ),
            set(dn.Augmentation.model_fields),
        ),
        (summary(1, 8, 2), {"shift.pixels"}),
    ],
)
def test_what_the_data_has_no_sense_for(dataset: Any, wrong: set[str]) -> None:
    spec = mlp(4, data=dn.Data(dataset="made", augmentation=EVERYTHING))
    found = {problem.field for problem in unsuitable(spec, dataset)}
    assert found == {f"data.augmentation.{name}" for name in wrong}


def test_a_training_refuses_what_its_data_has_no_sense_for() -> None:
    augmentation = dn.Augmentation(horizontal_flip=0.5)
    spec = mlp(4, data=dn.Data(dataset="made", augmentation=augmentation))
    with pytest.raises(dn.InvalidSpecError) as caught:
        fit(spec, split_of(spec, classification(6)))
    assert problems(caught.value) == {
        "data.augmentation.horizontal_flip": "samples of made are 6 features and no images; leave it out"
    }


def test_lints() -> None:
    def found(name: str, batch_size: int = 100, **settings: Any) -> dict[str, str]:
        spec = mlp(
            4,
            data=dn.Data(dataset=name, augmentation=dn.Augmentation(**settings)),
            optimization=dn.Optimization(batch_size=batch_size),
        )
        dataset = summary(1, 8, 8, name=name)
        return {lint.code: lint.field for lint in plan(spec, dataset).lints}

    flip = {"FLIPPED_DIGITS": "data.augmentation.horizontal_flip"}
    assert found("mnist", horizontal_flip=0.5, vertical_flip=0.5) == flip
    assert found("digits", vertical_flip=0.5) == {
        "FLIPPED_DIGITS": "data.augmentation.vertical_flip"
    }
    assert found("fashion_mnist", horizontal_flip=0.5) == found("mnist", noise_std=0.1) == {}
    alone = {"AUGMENTATION_WITHOUT_EFFECT": "data.augmentation.mixup_alpha"}
    assert found("mnist", batch_size=1, mixup_alpha=0.5) == alone
    assert found("mnist", batch_size=2, mixup_alpha=0.5) == {}
