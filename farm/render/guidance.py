"""Classifier-free guidance: a sampler's questions become rows of the network, and rows one answer.

Ho & Salimans 2022 (arXiv:2207.12598); the sum over several conditions is that of A1111's AND.
"""

from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch

from farm.prompts.patches import OnUnet
from farm.prompts.strands import stage_at
from farm.questions import Denoise, Draw, Output, Read
from farm.render.deepcache import DeepCache, Features
from farm.render.parameterization import Parameterization
from farm.render.requests import Coroutine, Fetch, Predict, Share, Weights
from farm.render.samplers.sampling import Question, Sampling
from farm.render.told import Conditioning


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """What a condition says for a while.

    Attributes:
        last: the last step at which it holds.
        key: equal keys have equal conditionings.
        conditioning: what the network is told.
    """

    last: int
    key: Hashable
    conditioning: Conditioning


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """A text that pulls at the picture, which may be another one at each step.

    Attributes:
        stages: in their order; the last one holds to the end.
        coefficient: of its row in the guided output; rows of 0 are not computed.
        weight: of its row in the output without guidance; the unconditional row's is 0.
    """

    stages: tuple[Stage, ...]
    coefficient: float
    weight: float = 1.0

    def at(self, evaluation: int) -> Stage:
        """What it says at an evaluation of the model, of which the first is 0."""
        return self.stages[stage_at([stage.last for stage in self.stages], evaluation)]


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where a sampler starts. Every cell that starts here can share its first rows.

    Attributes:
        key: equal keys have equal latents.
        x: the noisy latents handed to the sampler.
    """

    key: Hashable
    x: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Guidance:
    """Answers a sampler's `Denoise` and `Output` with one row for each condition.

    `rescale`, `minimum_sigma` and `guided` need the conditional and the unconditional row: at scales 0 and 1,
    where there is but one of them, they change nothing.

    Attributes:
        weights: whose network to ask.
        model: how that network's numbers are read.
        conditions: with their coefficients, the unconditional one included.
        origin: where the sampler starts.
        rescale: how far the guided output is scaled to the conditional one's standard deviation, 0 to 1.
        minimum_sigma: below it, every second evaluation leaves out the unconditional row.
        guided: how many of the first evaluations have the unconditional row; None is all.
        token_merging_ratio: of its rows.
        deepcache: of its rows; None computes all of each.
        beside: channels that the network is shown behind the latents `(channels, height/8, width/8)`.
        patches: of its rows: LoRA and hypernetworks.
    """

    weights: Weights
    model: Parameterization
    conditions: tuple[Condition, ...]
    origin: Origin
    rescale: float = 0.0
    minimum_sigma: float = 0.0
    guided: int | None = None
    token_merging_ratio: float = 0.0
    deepcache: DeepCache | None = None
    beside: torch.Tensor | None = None
    patches: OnUnet = OnUnet()

    def conditions_at(self, question: Denoise | Output, evaluation: int) -> tuple[Condition, ...]:
        """The conditions that have a row, with their coefficients.

        Args:
            question: of the sampler.
            evaluation: its number, from 0. A1111 counts so too, and leaves out at odd ones.
        """
        if not (self._has_stopped(evaluation) or self._leaves_out(question, evaluation)):
            return self.conditions
        alone = tuple(replace(one, coefficient=one.weight) for one in self.conditions if one.weight)
        return alone or self.conditions

    def rows(
        self,
        question: Denoise | Output,
        conditions: tuple[Condition, ...],
        evaluation: int,
        features: Sequence[torch.Tensor | None] | None = None,
    ) -> tuple[Predict | Share, ...]:
        """What is asked of the network; rows at the origin are shared, all others are this cell's own.

        Args:
            question: of the sampler.
            conditions: that have a row.
            evaluation: its number, from 0.
            features: for each condition the deep features that its row uses; None where it makes new ones.
        """
        deep = features or [None] * len(conditions)
        stages = [condition.at(evaluation) for condition in conditions]
        if isinstance(question, Output):
            return self._rows(question.input, question.time, stages, deep)
        shown = self.model.input(question.x, question.sigma)
        rows = self._rows(shown, self.model.time_at(question.sigma), stages, deep)
        if question.x is not self.origin.x:
            return rows
        time = float(np.float32(rows[0].time))  # as the network is told it
        key = ("first row", self.weights, self.patches, self.origin.key, question.sigma, time)
        return tuple(
            row if row.features is not None else _shared((*key, *row.approximation, stage.key), row)
            for row, stage in zip(rows, stages, strict=True)
        )

    def answer(
        self,
        question: Denoise | Output,
        conditions: tuple[Condition, ...],
        outputs: tuple[torch.Tensor, ...],
    ) -> torch.Tensor:
        """The guided answer, given what the network says to each row."""
        combined = _combined(outputs, [condition.coefficient for condition in conditions])
        if self.rescale and len(conditions) > 1:
            conditional = _combined(outputs, [condition.weight for condition in conditions])
            combined = rescaled(combined, conditional, self.rescale)
        if isinstance(question, Output):
            return combined
        return self.model.denoised(question.x, combined, question.sigma)

    def _has_stopped(self, evaluation: int) -> bool:
        return self.guided is not None and evaluation >= self.guided

    def _leaves_out(self, question: Denoise | Output, evaluation: int) -> bool:
        return evaluation % 2 == 1 and self.minimum_sigma > 0 and self._sigma(question) < self.minimum_sigma

    def _sigma(self, question: Denoise | Output) -> float:
        if isinstance(question, Denoise):
            return question.sigma
        return float(self.model.sigma_at(np.array(question.time)))

    def _rows(
        self,
        shown: torch.Tensor,
        time: float,
        stages: Sequence[Stage],
        features: Sequence[torch.Tensor | None],
    ) -> tuple[Predict, ...]:
        branch = None if self.deepcache is None else self.deepcache.branch
        if self.beside is not None:
            shown = torch.cat((shown, self.beside))
        how = (self.token_merging_ratio, branch)
        return tuple(
            Predict(self.weights, shown, time, stage.conditioning, *how, deep, self.patches)
            for stage, deep in zip(stages, features, strict=True)
        )


def _shared(key: Hashable, row: Predict) -> Share:
    return Share(key, lambda _: predict(row), is_row=True)


def _combined(outputs: Sequence[torch.Tensor], coefficients: Sequence[float]) -> torch.Tensor:
    (first, scale), *others = [pair for pair in zip(outputs, coefficients, strict=True) if pair[1]]
    combined = first * scale
    for output, coefficient in others:
        combined = torch.add(combined, output, alpha=coefficient)
    return combined


def rescaled(guided: torch.Tensor, conditional: torch.Tensor, amount: float) -> torch.Tensor:
    """Lin et al. 2023 (arXiv:2305.08891), equations 14 to 16, against overexposure.

    Args:
        guided: what guidance makes of the network's outputs, of one picture.
        conditional: what the network says without guidance.
        amount: 1 keeps the conditional output's standard deviation, 0 changes nothing.
    """
    return guided * (amount * conditional.std() / guided.std() + (1 - amount))


def predict(row: Predict) -> Coroutine:
    """The recipe of a shared row."""
    return (yield row)


class Sampled(NamedTuple):
    """What a sampler came to.

    Attributes:
        latents: `(4, height/8, width/8)`.
        evaluations: how often it asked the model.
    """

    latents: torch.Tensor
    evaluations: int


def guided(sampling: Sampling, guidance: Guidance) -> Generator[Any, Any, Sampled]:
    """Runs a sampler, turning its questions to the model into rows and passing every other request on."""
    answers: Any = None
    evaluation = 0
    features = Features(guidance.deepcache)
    while True:
        try:
            asked = sampling.send(answers)
        except StopIteration as finished:
            return Sampled(finished.value, evaluation)
        questions = asked if isinstance(asked, tuple) else (asked,)
        answered = yield from _answered(questions, guidance, evaluation, features)
        answers = answered if isinstance(asked, tuple) else answered[0]
        evaluation += any(isinstance(one, Denoise | Output) for one in questions)


def _answered(
    questions: tuple[Question, ...], guidance: Guidance, evaluation: int, features: Features
) -> Generator[Any, Any, list[Any]]:
    """All that is asked for goes out together."""
    features.drop_older(evaluation)
    conditions = [
        () if isinstance(one, Draw | Read) else guidance.conditions_at(one, evaluation) for one in questions
    ]
    requests = [
        (_passed_on(one),)
        if isinstance(one, Draw | Read)
        else guidance.rows(one, its, evaluation, [features.take(each.stages, evaluation) for each in its])
        for one, its in zip(questions, conditions, strict=True)
    ]
    outputs = iter((yield tuple(chain.from_iterable(requests))))
    parts = [tuple(islice(outputs, len(rows))) for rows in requests]
    return [
        part[0]
        if isinstance(one, Draw | Read)
        else guidance.answer(one, its, features.kept([each.stages for each in its], evaluation, part))
        for one, its, part in zip(questions, conditions, parts, strict=True)
    ]


def _passed_on(question: Draw | Read) -> Draw | Fetch:
    """What is no question to the model, as the engine answers it."""
    return Fetch(question.value) if isinstance(question, Read) else question
