"""Fitting a policy's normaliser, also where actions are offsets from an observation."""

from dataclasses import replace

import numpy as np

from ..data.episodes import Episodes
from ..data.normalizer import Normalizer, NormalizerConfig
from ..data.spec import Field, Spec
from ..data.windows import Windows
from .origin import check_origin, origin_of


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
