"""Hypothesis strategies for specs, results and raw protobuf messages.

`specs()` and `submissions()` are valid by construction, with any of their optional fields left out. `results(model)`
is any value of a result's type, NaN included. `messages(type)` is anything that protobuf can carry, right or wrong.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import BaseModel

from dropnorm import spec as dn
from dropnorm.results import JobError
from dropnorm.spec import layers

AnyModel = TypeVar("AnyModel", bound=BaseModel)
AnyMessage = TypeVar("AnyMessage", bound=Message)

BOOLS = st.booleans()
EPOCHS = st.integers(1, 1000)
SEEDS = st.integers(0, 2**63 - 1)
RATES = st.floats(0, 1, exclude_max=True)
SHARES = st.floats(0, 1, exclude_min=True)
POSITIVE = st.floats(1e-12, 1e6)
NON_NEGATIVE = st.floats(0, 1e6)
FUNCTIONS = st.sampled_from(get_args(dn.ActivationFunction))
NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,62}", fullmatch=True)
TITLES = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=200
)


def made(
    model: type[AnyModel],
    required: dict[str, SearchStrategy[Any]] | None = None,
    /,
    **optional: SearchStrategy[Any],
) -> SearchStrategy[AnyModel]:
    """A model with its required fields and any of the optional ones."""
    fields = st.fixed_dictionaries(required or {}, optional=optional)
    return fields.map(lambda values: model(**values))


def dropout_settings() -> dict[str, SearchStrategy[Any]]:
    return {
        "rate": RATES,
        "method": st.sampled_from(["unit", "spatial"]),
        "rescaling": st.sampled_from(["inverted", "at_inference", "l2_norm"]),
    }


def batch_norms(model: type[AnyModel], **rest: SearchStrategy[Any]) -> SearchStrategy[AnyModel]:
    rest = {"eps": POSITIVE, **rest}
    ghosts = {"ghost_batch_size": st.none() | st.integers(2, 2**20)}
    return st.one_of(
        made(model, momentum=SHARES, affine=BOOLS, **ghosts, **rest),
        made(model, track_running_stats=BOOLS, affine=BOOLS, **ghosts, **rest),
        made(model, {"averaging": st.just("cumulative")}, affine=BOOLS, **ghosts, **rest),
        made(model, {"freeze_after": EPOCHS}, freeze_affine=BOOLS, synchronized=BOOLS, **rest),
    )


def sample_norm_settings() -> dict[str, SearchStrategy[Any]]:
    return {"eps": POSITIVE, "affine": BOOLS}


@st.composite
def convolutions(draw: st.DrawFn) -> layers.Conv:
    groups, multiple = draw(st.integers(1, 8)), draw(st.integers(1, 32))
    small = st.integers(1, 1024)
    rest = {"kernel_size": small, "stride": small, "dilation": small, "bias": BOOLS}
    padding = st.none() | st.integers(0, 1024)
    values: dict[str, Any] = draw(st.fixed_dictionaries({}, optional=rest | {"padding": padding}))
    return layers.Conv(channels=groups * multiple, groups=groups, **values)


@st.composite
def pools(draw: st.DrawFn) -> layers.Pool:
    if draw(BOOLS):
        return layers.Pool(mode="global_average")
    kernel_size = draw(st.integers(1, 1024))
    rest = {
        "mode": st.sampled_from(["max", "average"]),
        "stride": st.none() | st.integers(1, 1024),
        "padding": st.integers(0, kernel_size // 2),
    }
    values: dict[str, Any] = draw(st.fixed_dictionaries({}, optional=rest))
    return layers.Pool(kernel_size=kernel_size, **values)


def plain_layers() -> SearchStrategy[dn.Layer]:
    return st.one_of(
        made(
            layers.Linear,
            {"units": st.integers(1, 2**20)},
            bias=BOOLS,
            dropconnect_rate=st.none() | RATES,
        ),
        convolutions(),
        pools(),
        st.just(layers.Flatten()),
        made(layers.Activation, function=FUNCTIONS),
        made(layers.Dropout, **dropout_settings()),
        batch_norms(layers.BatchNorm),
        made(layers.LayerNorm, **sample_norm_settings()),
        made(layers.GroupNorm, groups=st.integers(1, 2**20), **sample_norm_settings()),
        made(layers.InstanceNorm, **sample_norm_settings()),
        made(layers.RMSNorm, **sample_norm_settings()),
    )


def layer_lists(depth: int = 2) -> SearchStrategy[tuple[dn.Layer, ...]]:
    layer = plain_layers()
    if depth:
        layer |= layer_lists(depth - 1).map(lambda inner: layers.Residual(layers=inner))
    return st.lists(layer, min_size=1, max_size=4).map(tuple)


def architectures() -> SearchStrategy[dn.Architecture]:
    hidden = st.lists(st.integers(1, 2**20), max_size=5).map(tuple)
    return st.one_of(
        made(dn.MLP, {"hidden": hidden}, activation=FUNCTIONS, bias=BOOLS),
        made(dn.Sequential, {"layers": layer_lists()}, output_layer=BOOLS),
        image_families(),
        generative_families(),
        transformers(),
        recurrent_families(),
    )


def image_families() -> SearchStrategy[dn.Architecture]:
    widths, blocks = st.integers(1, 2**16), st.lists(st.integers(1, 64), min_size=1, max_size=8)
    function = {"activation": FUNCTIONS}
    hidden = st.lists(widths, min_size=1, max_size=16).map(tuple)
    channels = st.lists(widths, min_size=5, max_size=5).map(tuple)
    depths = st.sampled_from((18, 34, 50, 101, 152, 20, 32, 44, 56, 110))
    resnet = {
        "bottleneck": st.none() | BOOLS,
        "width": st.none() | widths,
        "squeeze": st.none() | widths,
        "zero_init": BOOLS,
    } | function
    densenet = {
        "growth": st.integers(1, 2**12),
        "compression": SHARES,
        "bottleneck": st.integers(1, 64),
    } | function
    return st.one_of(
        made(dn.AlexNet, channels=channels, hidden=hidden, **function),
        made(
            dn.VGG,
            depth=st.sampled_from((11, 13, 16, 19)),
            width=widths,
            hidden=hidden,
            **function,
        ),
        made(dn.GoogLeNet, width=st.floats(0.01, 16), auxiliary_heads=BOOLS, **function),
        made(dn.ResNet, depth=depths, **resnet),
        made(dn.ResNet, {"blocks": blocks.map(tuple)}, **resnet),
        made(dn.DenseNet, depth=st.sampled_from((121, 169, 201)), **densenet),
        made(dn.DenseNet, {"blocks": blocks.map(tuple)}, **densenet),
    )


def generative_families() -> SearchStrategy[dn.Architecture]:
    widths = st.integers(1, 2**16)
    hidden = st.lists(widths, min_size=1, max_size=16).map(tuple)
    likelihood = st.sampled_from(["bernoulli", "gaussian"])
    vae = {"hidden": hidden, "latent": widths, "activation": FUNCTIONS, "likelihood": likelihood}
    return st.one_of(
        made(dn.VAE, **vae),
        made(dn.GAN, latent=widths, width=widths, discriminator_rate=st.floats(1e-3, 1e3)),
    )


def transformers() -> SearchStrategy[dn.Architecture]:
    widths, depths = st.integers(1, 2**10), st.integers(1, 128)
    shared = {
        "feed_forward": widths,
        "activation": FUNCTIONS,
        "norm_position": st.sampled_from(["pre", "post"]),
    }
    # The width in heads of its own, so that they divide it.
    sizes = st.tuples(st.integers(1, 2**10), st.integers(1, 64)).map(
        lambda pair: {"width": pair[0] * pair[1], "heads": pair[1]}
    )
    return sizes.flatmap(
        lambda size: st.one_of(
            made(
                dn.Transformer,
                {name: st.just(value) for name, value in size.items()},
                encoder_layers=depths,
                decoder_layers=depths,
                final_norms=BOOLS,
                positions=st.sampled_from(["sinusoidal", "learned"]),
                tied_output=BOOLS,
                **shared,
            ),
            made(
                dn.BERT,
                {name: st.just(value) for name, value in size.items()},
                layers=depths,
                max_length=widths,
                segments=st.integers(1, 1024),
                **shared,
            ),
        )
    )


def recurrent_families() -> SearchStrategy[dn.Architecture]:
    widths = st.integers(1, 2**20)
    return st.one_of(
        made(
            dn.Seq2Seq,
            layers=st.integers(1, 128),
            width=widths,
            embedding_width=widths,
            reverse_source=BOOLS,
        ),
        made(dn.RNNEncoderDecoder, width=widths, embedding_width=widths, maxout_units=widths),
    )


def dropout_schedules() -> SearchStrategy[dn.DropoutSchedule]:
    return st.one_of(
        made(
            dn.LinearDropoutSchedule,
            {"start_factor": st.just(0.25), "end_factor": st.floats(0.5, 1)},
            from_epoch=st.integers(1, 10),
            to_epoch=st.none() | st.integers(11, 1000),
        ),
        made(dn.OffAfterDropoutSchedule, {"epochs": EPOCHS}),
        made(dn.CurriculumDropoutSchedule, gamma=st.none() | POSITIVE),
    )


def regularizations() -> SearchStrategy[dn.Regularization]:
    dropout = made(
        dn.Dropout,
        **dropout_settings(),
        conv_rate=st.none() | RATES,
        input_rate=RATES,
        output_rate=RATES,
        stochastic_depth_rate=RATES,
        embedding_rate=st.none() | RATES,
        recurrent_rate=RATES,
        attention_rate=st.none() | RATES,
        residual_rate=st.none() | RATES,
        dropconnect_rate=RATES,
        schedule=st.none() | dropout_schedules(),
    ) | made(dn.Dropout, method=st.sampled_from(["gaussian", "alpha"]), rate=RATES)
    places: dict[str, SearchStrategy[Any]] = {
        "input": BOOLS,
        "hidden": BOOLS,
        "output": BOOLS,
        "position": st.sampled_from(["before_activation", "after_activation"]),
    }
    sample = sample_norm_settings() | places
    norms: dict[str, SearchStrategy[Any]] = {
        "batch_norm": batch_norms(dn.BatchNorm, **places),
        "layer_norm": made(dn.LayerNorm, **sample),
        "group_norm": made(dn.GroupNorm, groups=st.integers(1, 2**20), **sample),
        "instance_norm": made(dn.InstanceNorm, **sample),
        "rms_norm": made(dn.RMSNorm, **sample),
    }
    rest = {
        "dropout": st.none() | dropout,
        "order": st.sampled_from(["norm_then_dropout", "dropout_then_norm"]),
        "max_norm": st.none() | POSITIVE,
        "l1": st.none() | POSITIVE,
        "label_smoothing": st.none() | st.floats(0.01, 0.99),
    }
    return st.one_of(
        made(dn.Regularization, **rest),
        *(made(dn.Regularization, **{name: norm}, **rest) for name, norm in norms.items()),
    )


def initializations() -> SearchStrategy[dn.Initialization]:
    distributions = st.sampled_from(["normal", "uniform"])
    biases = st.floats(-1e6, 1e6)
    return st.one_of(
        made(dn.Initialization, distribution=st.just("normal")),
        made(
            dn.Initialization,
            {"scheme": st.sampled_from(["xavier", "kaiming"])},
            distribution=distributions,
            gain=st.none() | POSITIVE,
            bias=biases,
        ),
        made(
            dn.Initialization,
            {"scheme": st.just("orthogonal")},
            gain=st.none() | POSITIVE,
            bias=biases,
        ),
        made(
            dn.Initialization,
            {"scheme": st.just("lecun")},
            distribution=distributions,
            bias=biases,
        ),
        made(dn.Initialization, {"scheme": st.just("truncated_normal")}, std=POSITIVE, bias=biases),
    )


def optimizers() -> SearchStrategy[dn.Optimizer]:
    rates = st.floats(1e-12, 1000.0)
    adam = {"lr": rates, "beta1": RATES, "beta2": RATES, "eps": POSITIVE}
    return st.one_of(
        made(dn.SGD, lr=rates, momentum=RATES, weight_decay=NON_NEGATIVE, decoupled=BOOLS),
        made(dn.SGD, {"momentum": st.floats(0.1, 0.99), "nesterov": BOOLS}, lr=rates),
        made(dn.Adam, **adam, weight_decay=NON_NEGATIVE),
        made(dn.AdamW, **adam, weight_decay=NON_NEGATIVE),
        made(
            dn.RMSprop,
            lr=rates,
            alpha=RATES,
            eps=POSITIVE,
            momentum=RATES,
            weight_decay=NON_NEGATIVE,
            decoupled=BOOLS,
        ),
        made(
            dn.Adagrad,
            lr=rates,
            lr_decay=NON_NEGATIVE,
            initial_accumulator=NON_NEGATIVE,
            eps=POSITIVE,
            weight_decay=NON_NEGATIVE,
            decoupled=BOOLS,
        ),
        made(
            dn.NAdam,
            **adam,
            momentum_decay=NON_NEGATIVE,
            weight_decay=NON_NEGATIVE,
            decoupled=BOOLS,
        ),
        made(dn.RAdam, **adam, weight_decay=NON_NEGATIVE, decoupled=BOOLS),
        made(dn.Muon, **adam, momentum=st.floats(0.1, 0.99), weight_decay=NON_NEGATIVE),
        made(dn.Muon, {"nesterov": st.just(False)}, momentum=RATES),
    )


@st.composite
def optimizations(draw: st.DrawFn) -> dn.Optimization:
    epochs = draw(st.integers(2, 1000))
    milestones = st.sets(st.integers(1, epochs - 1), min_size=1, max_size=5)
    ordered = milestones.map(lambda found: tuple(sorted(found)))
    length = st.none() | st.integers(1, epochs)
    schedules = st.one_of(
        st.just(dn.ConstantSchedule()),
        made(dn.MultiStepSchedule, {"milestones": ordered}, gamma=SHARES),
        made(dn.ExponentialSchedule, gamma=SHARES),
        made(dn.PolynomialSchedule, power=st.floats(0.01, 100), epochs=length, final_factor=RATES),
        made(
            dn.CosineRestartsSchedule,
            {"first_epochs": st.integers(1, epochs - 1)},
            growth=st.integers(1, 1000),
            final_factor=RATES,
        ),
        made(dn.InverseSqrtSchedule, warmup_steps=st.integers(1, 10**9)),
        made(
            dn.PlateauSchedule,
            gamma=SHARES,
            patience=EPOCHS,
            min_delta=NON_NEGATIVE,
            cooldown=st.integers(0, 100_000),
            final_factor=RATES,
        ),
        made(dn.StepSchedule, {"step_size": st.integers(1, epochs - 1)}, gamma=SHARES),
        made(dn.CosineSchedule, epochs=length, final_factor=RATES),
        made(
            dn.OneCycleSchedule,
            rise=st.floats(0, 1, exclude_min=True, exclude_max=True),
            start_factor=SHARES,
            final_factor=RATES,
        ),
    )
    sizes, scaling = st.integers(1, 2**20), st.sampled_from(["none", "linear", "square_root"])
    batch_size_schedules = ordered.flatmap(
        lambda milestones: st.one_of(
            made(
                dn.BatchSizeSteps,
                {
                    "milestones": st.just(milestones),
                    "sizes": st.tuples(*[sizes] * len(milestones)),
                },
                lr_scaling=scaling,
            ),
            made(
                dn.BatchSizeGrowth,
                {"milestones": st.just(milestones)},
                factor=st.floats(1.01, 1000),
                max_size=st.none() | st.just(2**20),
                lr_scaling=scaling,
            ),
        )
    )
    clipping = st.one_of(
        made(dn.GradientClipping, {"max_norm": POSITIVE}, max_value=st.none() | POSITIVE),
        made(dn.GradientClipping, {"max_value": POSITIVE}),
    )
    warmup = made(dn.Warmup, {"epochs": st.floats(0.1, epochs - 0.5)}, start_factor=SHARES)
    values: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {"epochs": st.just(epochs)},
            optional={
                "optimizer": optimizers(),
                "decay_biases_and_norms": BOOLS,
                "schedule": schedules,
                "warmup": st.none() | warmup,
                "batch_size": sizes,
                "batch_size_schedule": st.none() | batch_size_schedules,
                "micro_batch_size": st.none() | sizes,
                "auto_learning_rate": st.none()
                | made(
                    dn.AutoLearningRate,
                    lowest_factor=st.floats(1e-9, 1, exclude_max=True),
                    highest_factor=st.floats(1, 1e6, exclude_min=True),
                    steps=st.integers(20, 10_000),
                ),
                "auto_batch_size": st.none()
                | made(dn.AutoBatchSize, max_size=sizes, memory_share=SHARES),
                "last_batch": st.sampled_from(["keep", "drop"]),
                "gradient_clipping": st.none() | clipping,
                "averaging": st.none()
                | made(dn.EMA, decay=st.floats(0.01, 0.99))
                | made(dn.SWA, start_epoch=length),
                "early_stopping": st.none()
                | made(dn.EarlyStopping, patience=EPOCHS, min_delta=NON_NEGATIVE),
            },
        )
    )
    if "auto_batch_size" in values:
        values.pop("batch_size_schedule", None)
        values.pop("micro_batch_size", None)
    return dn.Optimization(**values)


def augmentations() -> SearchStrategy[dn.Augmentation]:
    shift = made(
        dn.Shift,
        pixels=st.integers(1, 1024),
        fill=st.sampled_from(["black", "edge", "reflect"]),
    )
    crop = made(dn.Crop, min_area=st.floats(0.01, 0.99), max_aspect=st.floats(1, 10))
    alpha = st.none() | st.floats(0.01, 1000)
    return made(
        dn.Augmentation,
        {"horizontal_flip": SHARES},
        vertical_flip=st.none() | SHARES,
        shift=st.none() | shift,
        crop=st.none() | crop,
        mixup_alpha=alpha,
        cutmix_alpha=alpha,
        noise_std=st.none() | POSITIVE,
    )


def data() -> SearchStrategy[dn.Data]:
    half = st.floats(0.01, 0.49)
    return made(
        dn.Data,
        {"dataset": NAMES},
        validation_share=half,
        test_share=st.none() | half,
        stratify=BOOLS,
        split_seed=st.none() | SEEDS,
        train_samples=st.none() | st.integers(2, 2**40),
        standardization=st.sampled_from(["none", "per_feature", "global"]),
        augmentation=st.none() | augmentations(),
    )


def computes() -> SearchStrategy[dn.Compute]:
    switches = {"compile": BOOLS, "deterministic": BOOLS}
    wide = st.sampled_from(["float32", "bfloat16"])
    return st.one_of(
        made(
            dn.Compute,
            device=st.just("auto"),
            precision=wide,
            gpus=st.integers(0, 1024),
            **switches,
        ),
        made(dn.Compute, {"device": st.just("cpu")}, precision=wide, gpus=st.just(0), **switches),
        made(
            dn.Compute,
            {"device": st.just("cuda")},
            precision=wide | st.just("float16"),
            gpus=st.none() | st.integers(1, 1024),
            **switches,
        ),
    )


def specs() -> SearchStrategy[dn.TrainingSpec]:
    evaluations = made(
        dn.EvaluationSettings,
        selection=st.sampled_from(["validation_loss", "validation_accuracy"]),
        train_metrics=BOOLS,
        calibration_bins=st.integers(2, 1000),
        mc_dropout_passes=st.none() | st.integers(2, 10_000),
        temperature_scaling=BOOLS,
        variance_shift=BOOLS,
        layer_report_epochs=st.none() | EPOCHS,
        robustness=BOOLS,
        beam_width=st.none() | st.integers(2, 1000),
        recalibrate_batch_norm=st.sampled_from([None, "dropout_off", "dropout_on"]),
    )
    return made(
        dn.TrainingSpec,
        {"architecture": architectures(), "data": data()},
        regularization=regularizations(),
        initialization=initializations(),
        optimization=optimizations(),
        evaluation=evaluations,
        compute=computes(),
        seed=SEEDS,
    )


def submissions() -> SearchStrategy[dn.Submission]:
    values = st.text(st.characters(codec="utf-8", categories=["L", "N"]), max_size=63)
    return made(
        dn.Submission,
        {"spec": specs()},
        display_name=st.none() | TITLES,
        experiment=TITLES,
        labels=st.dictionaries(NAMES, values, max_size=4),
        priority=st.integers(-1000, 1000),
    )


def results(model: type[AnyModel]) -> SearchStrategy[AnyModel]:
    """Any value of a result, as its annotations allow; a number may be NaN or infinite."""
    fields = {
        name: _typed(field.annotation)
        for name, field in model.model_fields.items()
        if name != "kind"
    }
    return st.fixed_dictionaries(fields).map(lambda values: model(**values))


def _typed(annotation: Any) -> SearchStrategy[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _typed(arguments[0])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, UnionType):
        return st.one_of(*map(_typed, arguments))
    if origin is tuple:
        return st.lists(_typed(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(_typed(arguments[0]), _typed(arguments[1]), max_size=3)
    if annotation is dn.TrainingSpec:
        return specs()
    if annotation is JobError:
        return st.builds(
            JobError,
            code=st.integers(1, 16),
            reason=st.just("BAD_DATA"),
            message=_typed(str),
            metadata=_typed(dict[str, str]),
        )
    if issubclass(annotation, BaseModel):
        return results(annotation)
    if issubclass(annotation, Enum):
        return st.sampled_from(annotation)
    return _SCALARS[annotation]


_INT64 = st.integers(-(2**63), 2**63 - 1)
_TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
_SCALARS: dict[Any, SearchStrategy[Any]] = {
    type(None): st.none(),
    bool: BOOLS,
    int: _INT64,
    float: st.floats(),
    str: _TEXT,
    datetime: st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)),
}


def messages(message_type: type[AnyMessage], *, depth: int = 6) -> SearchStrategy[AnyMessage]:
    """Anything that protobuf can carry in a message of this type, most of it nonsense."""
    return _contents(cast(Descriptor, message_type.DESCRIPTOR), depth).map(
        lambda values: message_type(**values)
    )


def _contents(descriptor: Descriptor, depth: int) -> SearchStrategy[dict[str, Any]]:
    if not depth or descriptor.full_name.startswith("google."):
        return st.just({})
    in_unions = {field.name for union in descriptor.oneofs for field in union.fields}
    choices = [
        st.fixed_dictionaries({field.name: _later(field, depth)})
        for field in descriptor.fields
        if field.name in in_unions and not _is_optional(field)
    ]
    loose = {
        field.name: _later(field, depth)
        for field in descriptor.fields
        if field.name not in in_unions or _is_optional(field)
    }
    if choices:
        return st.just({}) | st.one_of(choices)
    return st.fixed_dictionaries({}, optional=loose)


def _is_optional(field: FieldDescriptor) -> bool:
    union = field.containing_oneof
    return union is not None and union.name == f"_{field.name}"


def _later(field: FieldDescriptor, depth: int) -> SearchStrategy[Any]:
    return st.deferred(lambda: _value(field, depth))  # a layer may contain layers


def _value(field: FieldDescriptor, depth: int) -> SearchStrategy[Any]:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        key, value = (_value(each, depth) for each in message.fields)
        return st.dictionaries(key, value, max_size=2)
    if message is not None:
        one: SearchStrategy[Any] = _contents(message, depth - 1)
    elif field.enum_type is not None:
        one = st.integers(0, len(field.enum_type.values)) | st.integers(-(2**31), 2**31 - 1)
    elif field.type == FieldDescriptor.TYPE_BYTES:
        one = st.binary(max_size=64)
    else:
        one = _CARRIED[field.cpp_type]
    return st.lists(one, max_size=2) if field.is_repeated else one


_CARRIED: dict[int, SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.sampled_from([-1, 0, 1, 2, 2**63 - 1, -(2**63)]) | _INT64,
    FieldDescriptor.CPPTYPE_DOUBLE: st.sampled_from([-1.0, 0.0, 0.5, 1.0]) | st.floats(),
    FieldDescriptor.CPPTYPE_BOOL: BOOLS,
    FieldDescriptor.CPPTYPE_STRING: st.sampled_from(["digits", ""]) | _TEXT,
}
