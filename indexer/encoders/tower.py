"""An image tower reduced to what embeddings need: raw pixels in, pooled tokens of the layers asked for out.

The weights are those of the transformers model; what differs is what is computed. Normalising the pixels and adding
positions happen inside the patch embedding, layer scale inside the weights it scales, and where only the CLS token of
the deepest layer is read, the last block computes queries, projection and MLP for that token alone: 83% of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from indexer.encoders.efficientnet import EfficientNet, open_efficientnet
from indexer.encoders.families import Checkpoint, Family, load_tower
from indexer.encoders.taps import Tap
from search.recipe import Preprocessing

MIDDLE_GREY = 128
"""Subtracted from pixels: what is left (-128..127) is exact in bf16, and small where images are grey."""
TOKEN_MULTIPLE = 4
"""Tokens are padded to a multiple of this: 257 rows cannot be shared out evenly, and one image takes 10% longer."""
GEM_EXPONENT, GEM_LEAST = 3.0, 1e-6
"""Of the generalised mean (GeM), and what its numbers are at least: those of patches may be negative. Radenovic et al.,
"Fine-tuning CNN Image Retrieval with No Human Annotation", 2018 (arXiv:1711.02512)."""


class Block(nn.Module):
    """One transformer block of any of the families: pre-norm attention, pre-norm MLP."""

    def __init__(self, family: Family, block: Any) -> None:
        super().__init__()
        names = family.block
        attention = getattr(block, names.attention)
        self.norm1, self.norm2 = getattr(block, names.norm1), getattr(block, names.norm2)
        self.q, self.k, self.v = attention.q_proj, attention.k_proj, attention.v_proj
        self.out = getattr(attention, names.out)
        self.mlp = block.mlp
        self.head = int(attention.head_dim)
        if names.scales is not None:
            last = block.mlp.fc2 if hasattr(block.mlp, "fc2") else block.mlp.down_proj
            for linear, scale in zip((self.out, last), names.scales, strict=True):
                factor = getattr(block, scale).lambda1
                linear.weight.mul_(factor[:, None])
                linear.bias.mul_(factor)

    def forward(self, tokens: Tensor, *, real: int, first_only: bool) -> Tensor:
        """(n, tokens, dim) to the same, or to (n, 1, dim): what becomes of the first token.

        real: how many tokens are not padding; nothing attends to those behind them.
        """
        normed = self.norm1(tokens)
        asking = normed[:, :1] if first_only else normed
        keys, values = self.k(normed)[:, :real], self.v(normed)[:, :real]
        attended = nn.functional.scaled_dot_product_attention(
            self._heads(self.q(asking)), self._heads(keys), self._heads(values)
        )
        tokens = (tokens[:, :1] if first_only else tokens) + self.out(attended.transpose(1, 2).flatten(2))
        answer: Tensor = tokens + self.mlp(self.norm2(tokens))
        return answer

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(tokens.shape[0], tokens.shape[1], -1, self.head).transpose(1, 2)


class Tower(nn.Module):
    """Pixels (n, size, size, 3) uint8, RGB, to one float32 (n, dim) a tap, not normalised."""

    positions: Tensor

    def __init__(self, model: Any, checkpoint: Checkpoint, taps: Sequence[Tap], preprocessing: Preprocessing) -> None:
        """model: as `load_tower` gives it, in float32, deep enough for every tap. Its weights are taken over."""
        super().__init__()
        family = checkpoint.family
        assert family is not None
        self._taps = tuple(taps)
        self._prefix = checkpoint.prefix
        deepest = max(tap.layer for tap in taps)
        self._reads_first = ("cls", "projection") if family.has_cls else ()
        self.first_only = all(tap.layer < deepest or tap.pooling in self._reads_first for tap in taps)
        with torch.no_grad():
            projection = family.projection(model)
            mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
            self.patch = projection.kernel_size[0]
            self.grid = preprocessing.size // self.patch
            weight = (projection.weight / (255 * std)).permute(0, 2, 3, 1).flatten(1)
            self.projection = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            self.projection.weight.copy_(weight)
            grey = torch.full((1, 3, preprocessing.size, preprocessing.size), MIDDLE_GREY / 255)
            self.register_buffer("positions", family.layer0(model, (grey - mean) / std).clone())
            self.real = self.positions.shape[1]
            self.norm0 = getattr(model, family.first_norm) if family.first_norm else nn.Identity()
            self.blocks = nn.ModuleList(Block(family, block) for block in family.blocks(model)[:deepest])
        self.final_norm = getattr(model, family.final_norm)
        self.pooler = getattr(model, family.pooler) if _needs_pooler(taps) and family.pooler else nn.Identity()
        matrix = checkpoint.projection() if any(tap.pooling == "projection" for tap in taps) else None
        self.among_texts: nn.Module = nn.Identity()
        if matrix is not None:
            self.among_texts = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
            self.among_texts.weight = nn.Parameter(matrix)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(n, size, size, 3) uint8 pixels to one float32 (n, dim) a tap, in the order of the taps, not normalised."""
        tokens = self._layer0(pixels)
        pooled = [self._pool(tokens, tap) if tap.layer == 0 else None for tap in self._taps]
        for layer, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, real=self.real, first_only=self.first_only and layer == len(self.blocks))
            for position, tap in enumerate(self._taps):
                if tap.layer == layer:
                    pooled[position] = self._pool(tokens, tap)
        return tuple(answer.float() for answer in pooled if answer is not None)

    def _layer0(self, pixels: Tensor) -> Tensor:
        kept = self.grid * self.patch
        patches = (
            pixels[:, :kept, :kept]
            .reshape(-1, self.grid, self.patch, self.grid, self.patch * 3)
            .permute(0, 1, 3, 2, 4)
            .reshape(-1, self.grid * self.grid, self.patch * self.patch * 3)
        )
        embedded = self.projection(patches.to(self.projection.weight.dtype) - MIDDLE_GREY)
        before = self.real - self.grid * self.grid
        beginning = self.positions[:, :before].expand(embedded.shape[0], -1, -1)
        padding = torch.zeros_like(self.positions[:, : -self.real % TOKEN_MULTIPLE]).expand(embedded.shape[0], -1, -1)
        tokens: Tensor = self.norm0(torch.cat([beginning, embedded + self.positions[:, before:], padding], dim=1))
        return tokens

    def _pool(self, tokens: Tensor, tap: Tap) -> Tensor:
        """(n, tokens, dim) to (n, dim). The norm works on each token by itself: of `cls`, it needs that token only."""
        tokens = tokens[:, : 1 if tap.pooling in self._reads_first else self.real]
        if tap.final_norm:
            tokens = self.final_norm(tokens)
        answer: Tensor
        if tap.pooling == "projection" and self._reads_first:
            answer = self.among_texts(tokens[:, 0])
            return answer
        if tap.pooling in ("pooler", "projection"):
            answer = self.pooler(tokens)
            return answer
        if tap.pooling == "tokens":
            answer = tokens.float().flatten(1)
            return answer
        # Of unit length each, here, as `vectors` is not part of an exported model.
        parts = [self._part(tokens, name) for name in tap.pooling.split("+")]
        return parts[0] if len(parts) == 1 else torch.cat([nn.functional.normalize(part) for part in parts], dim=1)

    def _part(self, tokens: Tensor, name: str) -> Tensor:
        if name == "cls":
            return tokens[:, 0].float()
        patches = tokens[:, self._prefix :].float()
        if name == "mean":
            return patches.mean(dim=1)
        if name == "std":
            return patches.std(dim=1, correction=0)
        return patches.clamp(min=GEM_LEAST).pow(GEM_EXPONENT).mean(dim=1).pow(1 / GEM_EXPONENT)


def _needs_pooler(taps: Sequence[Tap]) -> bool:
    """Tell whether the pooling head is read: of a model without a CLS token, it is what brings images among texts."""
    return any(tap.pooling in ("pooler", "projection") for tap in taps)


Network = Tower | EfficientNet


def open_tower(checkpoint: Checkpoint, taps: Sequence[Tap], preprocessing: Preprocessing) -> Network:
    """Load a checkpoint's tower in float32, no deeper than the taps need. Raises ModelUnsupported."""
    if checkpoint.family is None:
        return open_efficientnet(checkpoint, taps, preprocessing)
    model = load_tower(
        checkpoint,
        deepest=max(tap.layer for tap in taps),
        with_pooler=_needs_pooler(taps),
    )
    return Tower(model, checkpoint, taps, preprocessing).eval().requires_grad_(False)
