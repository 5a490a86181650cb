"""Fitting a policy's normaliser, also where actions are offsets from an observation, or are scaled as another policy's."""

from dataclasses import replace

import numpy as np

from ..data.episodes import Episodes
from ..data.errors import NormalizerError
from ..data.normalizer import Normalizer, NormalizerConfig
from ..data.spec import Field, Spec
from ..data.windows import Windows
from .origin import affine_actions, check_origin, origin_of
from .policy import GenerativePolicy, Policy


def fit_normalizer(
    episodes: Episodes, spec: Spec, config: NormalizerConfig, *, relative: str | None = None
) -> Normalizer:
    """Statistics of the keys a policy reads, and of its actions.

    Args:
        episodes: the data.
        spec: the policy's, with its window lengths.
        config: how each field is scaled.
        relative: observation key whose latest value actions are offsets from. The statistics of the action are then
            those of the offsets, one row per step of a chunk: (H, A) instead of (A,).
    """
    kept = replace(
        episodes,
        spec=episodes.spec.keep(tuple(spec.observation)),
        observation={key: episodes.observation[key] for key in spec.observation},
    )
    if relative is None:
        return Normalizer.fit(kept, config)
    check_origin(spec, relative)
    origin = replace(
        kept, spec=kept.spec.keep((relative,)), observation={relative: kept.observation[relative]}
    )
    batch = Windows(origin, spec.keep((relative,))).batch(np.arange(episodes.steps))
    offsets = batch.action - origin_of(batch.observation[relative], spec.action_dim)[:, None]
    # There is one window per step, so a chunk of offsets can stand in for the action of its step.
    flat = offsets.flatten(1).float().numpy()
    action = Field(shape=(flat.shape[1],))
    fitted = Normalizer.fit(replace(kept, spec=replace(kept.spec, action=action), action=flat), config)
    statistics = {key: fitted.affine(key) for key in fitted.keys}
    offset, scale = statistics["action"]
    shape = (spec.horizon, spec.action_dim)
    return Normalizer(statistics | {"action": (offset.view(shape), scale.view(shape))})


def scaled_like(normalizer: Normalizer, spec: Spec, relative: str | None, other: Policy) -> Normalizer:
    """The same statistics of observations, and another policy's of actions.

    Args:
        normalizer: of the policy to be.
        spec: of the policy to be.
        relative: what its actions are offsets from.
        other: a policy that commands the same actions.

    Raises:
        NormalizerError: if the other's actions are not the same, naming what differs.
    """
    if not isinstance(other, GenerativePolicy) or not affine_actions(other):
        raise NormalizerError(
            f"normalizer.like names a {type(other).__name__}, which scales actions in a way of its own; name the run of a "
            "diffusion, flow, energy or vision-language-action policy"
        )
    theirs = getattr(other, "relative", None)
    if theirs != relative:
        raise NormalizerError(
            f"normalizer.like: actions are relative to {relative!r} here and to {theirs!r} there, so that their scales mean "
            "different things; set relative to the same"
        )
    if other.spec.action_dim != spec.action_dim:
        raise NormalizerError(
            f"normalizer.like: actions have {spec.action_dim} numbers here and {other.spec.action_dim} there"
        )
    offset, scale = other.normalizer.affine("action")
    if offset.ndim == 2:
        first = spec.start - other.spec.start
        if first < 0 or first + spec.horizon > len(offset):
            raise NormalizerError(
                f"normalizer.like: a chunk here is actions {spec.start} to {spec.start + spec.horizon - 1}, and there are "
                f"scales for {other.spec.start} to {other.spec.start + len(offset) - 1}; shorten the chunk or name a run "
                "with a longer one"
            )
        offset, scale = offset[first : first + spec.horizon], scale[first : first + spec.horizon]
    statistics = {key: normalizer.affine(key) for key in normalizer.keys}
    return Normalizer(statistics | {"action": (offset, scale)})
