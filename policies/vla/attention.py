"""Attention of the two streams: rotary positions, and queries that share one prefix.

Shapes: B batch, K samples, L tokens, P prefix tokens, G groups of keys, N queries per group, D width of a head.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Rotation = tuple[Tensor, Tensor]


def rotation(positions: Tensor, width: int, *, base: float = 10_000.0) -> Rotation:
    """Cosines and sines (B, L, 1, D / 2) that turn heads of `width` to positions (B, L)."""
    exponent = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width
    angle = (positions[..., None].float() / base**exponent)[:, :, None]
    return angle.cos(), angle.sin()


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Rotary position embedding of (B, L, heads, D), arXiv 2104.09864, the halves of a head as the pairs' parts."""
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = by
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def self_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention among the tokens of one stream.

    Args:
        q: (B, L, G * N, D).
        k: (B, L, G, D), shared by N heads each.
        v: (B, L, G, D).
        mask: (B, L, L) bool. A row that sees nothing, as padding's, attends evenly: nothing reads it.

    Returns:
        (B, L, G * N * D).
    """
    bias = mask_bias(mask, q.dtype)[:, None]
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=bias, enable_gqa=True
    )
    return out.transpose(1, 2).flatten(2)


def shared_attention(
    q: Tensor, prefix: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor] | None, bias: Tensor
) -> Tensor:
    """Attention of B * K suffixes, of which K in a row share a prefix that stands in memory once.

    Args:
        q: (B * K, L, G * N, D).
        prefix: keys and values (B, G, P, D).
        own: keys and values (B * K, L, G, D) of the suffixes themselves, or None where they see the prefix alone.
        bias: (B, L, P + L) of `mask_bias`, or (B, L, P) without keys of their own.

    Returns:
        (B * K, L, G * N * D).
    """
    keys, values = prefix
    batch, groups, length = keys.shape[0], keys.shape[1], q.shape[1]
    q = q.unflatten(0, (batch, -1)).unflatten(3, (groups, -1)).permute(0, 3, 1, 4, 2, 5)  # B G K N L D
    samples, heads = q.shape[2], q.shape[3]
    flat = q.reshape(batch, groups, -1, q.shape[-1]) * q.shape[-1] ** -0.5
    scores = (flat @ keys.transpose(2, 3)).unflatten(2, (samples, -1))
    if own is not None:
        k, v = (x.unflatten(0, (batch, samples)).permute(0, 3, 1, 2, 4) for x in own)  # B G K L D
        scores = torch.cat([scores, flat.unflatten(2, (samples, -1)) @ k.transpose(3, 4)], dim=-1)
    scores = scores.unflatten(3, (heads, length)) + bias[:, None, None, None]
    weight = scores.softmax(dim=-1, dtype=torch.float32)
    weight = weight.to(values.dtype).flatten(3, 4)
    here, rest = weight.split([keys.shape[2], weight.shape[-1] - keys.shape[2]], dim=-1)
    out = (here.flatten(2, 3) @ values).unflatten(2, (samples, -1))
    if own is not None:
        out = out + rest @ v
    out = out.unflatten(3, (heads, length)).permute(0, 2, 4, 1, 3, 5)  # B K L G N D
    return out.flatten(3).flatten(0, 1)


def mask_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a token is seen, and else a number so low that nothing is left of it, yet finite: rows may see none."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(
        ~mask, torch.finfo(dtype).min / 2
    )
