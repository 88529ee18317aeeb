"""The families of networks: from the settings of each to layers. None of them makes a module by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dropnorm_service.training.elements import Element
from dropnorm_service.training.families.alexnet import alexnet
from dropnorm_service.training.families.bert import bert
from dropnorm_service.training.families.densenet import densenet
from dropnorm_service.training.families.gan import gan
from dropnorm_service.training.families.googlenet import googlenet
from dropnorm_service.training.families.mlp import mlp
from dropnorm_service.training.families.resnet import resnet
from dropnorm_service.training.families.rnn_encoder_decoder import rnn_encoder_decoder
from dropnorm_service.training.families.seq2seq import seq2seq
from dropnorm_service.training.families.sequential import sequential
from dropnorm_service.training.families.transformer import transformer
from dropnorm_service.training.families.vae import vae
from dropnorm_service.training.families.vgg import vgg
from dropnorm_service.training.layout import Frame, Layout

FAMILIES: Mapping[str, Callable[[Any, Frame], Sequence[Element]]] = {
    "mlp": mlp,
    "sequential": sequential,
    "alexnet": alexnet,
    "vgg": vgg,
    "googlenet": googlenet,
    "resnet": resnet,
    "densenet": densenet,
}
"""Kind of feed-forward architecture -> its layers, from what the input place leaves to the output layer."""

COMPOSITES: Mapping[str, Callable[[Any, Frame], Layout]] = {
    "vae": vae,
    "gan": gan,
    "transformer": transformer,
    "bert": bert,
    "seq2seq": seq2seq,
    "rnn_encoder_decoder": rnn_encoder_decoder,
}
"""Kind of architecture of several parts, or of tokens -> its layout."""

TAKES_TOKENS: frozenset[str] = frozenset({"transformer", "bert", "seq2seq", "rnn_encoder_decoder"})
"""Kinds of architectures whose samples are sequences of tokens."""

__all__ = ["COMPOSITES", "FAMILIES", "TAKES_TOKENS"]
