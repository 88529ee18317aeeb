"""What will train and is probably not what is wished: rules that each yield lints with a stable code."""

from __future__ import annotations

from collections.abc import Sequence

from dropnorm.results import Lint
from dropnorm_service.training.lints import (
    augmentation,
    batch_norms,
    evaluation,
    forms,
    network,
    optimizers,
    over_time,
    schedules,
    tokens,
    training,
)
from dropnorm_service.training.lints.subject import Rule, Subject

RULES: Sequence[Rule] = (
    network.variance_shift,
    network.redundant_bias,
    network.limit_before_norm,
    network.dropout_on_logits,
    network.batch_norm_on_logits,
    network.high_rate,
    network.batch_statistics,
    network.nothing_to_regularize,
    forms.idle_order,
    forms.idle_norm,
    forms.idle_form,
    forms.idle_spatial_dropout,
    forms.alpha_without_selu,
    batch_norms.single_ghost,
    batch_norms.idle_freeze,
    batch_norms.synchronized_alone,
    batch_norms.idle_recalibration,
    batch_norms.frozen_in_the_end,
    tokens.regularized_tokens,
    tokens.order_in_a_branch,
    tokens.position_without_activation,
    optimizers.idle_decay,
    optimizers.nothing_else_to_decay,
    optimizers.muon_without_matrices,
    training.last_batch_of_one,
    training.batch_exceeds_split,
    training.idle_accumulation,
    training.norm_of_parts,
    schedules.schedule_ends_early,
    schedules.idle_schedule,
    schedules.idle_batch_size_schedule,
    schedules.second_warmup,
    schedules.unfinished_warmup,
    training.idle_early_stopping,
    training.idle_averaging,
    over_time.idle_dropout_schedule,
    over_time.recompilation,
    evaluation.idle_mc_dropout,
    evaluation.idle_variance_shift,
    evaluation.dropout_over_in_the_end,
    evaluation.idle_bins,
    augmentation.flipped_digits,
    augmentation.mixed_alone,
    evaluation.idle_layer_report,
    training.unused_gpus,
    training.nearly_full,
)


def lint(subject: Subject) -> tuple[Lint, ...]:
    """Everything that the rules find, in their order."""
    return tuple(found for rule in RULES for found in rule(subject))


__all__ = ["RULES", "Rule", "Subject", "lint"]
