"""EfficientNet-Lite0: raw pixels in, its pooled features out, and the statistics of early ones, which tell a style.

As in TensorFlow, where it was trained: convolutions that halve an image of even sides pad below and to the right only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from indexer.encoders.families import WINDOWS, Checkpoint
from indexer.encoders.taps import Tap
from indexer.errors import ModelUnsupported
from search.recipe import Preprocessing

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first block, expansion and channels of each stage."""
STEM_CHANNELS = 32
STATISTICS_BLOCKS = (5, 8)
"""Blocks, counted from 1, whose channels' means and deviations are read: the last of 28 and the third of 14 places a
side."""
WINDOWS_BLOCKS = (11, 16)
"""Blocks whose channels' means in windows are read: the last ones of the fifth stage and of all."""
STRETCHES = ((9 / 14, 5 / 14), (5 / 14, 9 / 14))
"""Height and width of a query's views, as shares of the pixels' side: about as large as half a side by half a side. Of
448 pixels, multiples of 32."""
PLACES_BLOCK = 11
"""The block whose channels are read place by place, one in 16 x 16 pixels."""


class EfficientNet(nn.Module):
    """Pixels (n, size, size, 3) uint8, RGB, to one float32 array a tap: all of whole images, or of parts.

    `mean`: (n, 1280), the mean of all places of its last features, not normalised. `mean+std`: the means and standard
    deviations of the channels of STATISTICS_BLOCKS, of unit length each: see Huang and Belongie, "Arbitrary Style
    Transfer in Real-time with Adaptive Instance Normalization", 2017 (arXiv:1703.06868). `windows`: (n, 10, 432), the
    means of WINDOWS_BLOCKS, of unit length each, of the whole image, seen at half its size, and of each window: so what
    is a window of another picture has things of the same size in pixels. `stretches`: (n, 2, 432), of the whole image
    as STRETCHES say. Pixels are of a square, whatever the image is: a part of 3:2 that was cut out of a square image is
    narrower there than as a square of its own. `tokens`: what PLACES_BLOCK has at each place of the image, and then at
    each of the image at half its size, 112 numbers each, in one row: see `indexer.encoders.places`.
    """

    def __init__(self, preprocessing: Preprocessing, dim: int, taps: Sequence[Tap] = ()) -> None:
        """dim: of the last features. taps: of its one layer; without any, `mean`."""
        super().__init__()
        self._poolings = [tap.pooling for tap in taps] or ["mean"]
        self._sizes = [(round(y * preprocessing.size), round(x * preprocessing.size)) for y, x in STRETCHES]
        self.stem = _Convolution(3, STEM_CHANNELS, 3, stride=2)
        blocks, channels = [], STEM_CHANNELS
        for count, kernel, stride, expansion, wanted in STAGES:
            for number in range(count):
                blocks.append(_Block(channels, wanted, kernel, 1 if number else stride, expansion))
                channels = wanted
        self.blocks = nn.Sequential(*blocks)
        self.head = _Convolution(channels, dim, 1)
        self.register_buffer("mean", torch.tensor(preprocessing.mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(n, size, size, 3) uint8 pixels to one float32 array a tap, in their order: (n, dim), or (n, 10, dim)."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        # of bf16, the buffers are bf16 too: pixels are normalised in float32, and rounded once
        image = (pixels.permute(0, 3, 1, 2).float() / 255 - mean.float()) / std.float()
        parts = {"windows": self._windows, "stretches": self._stretches, "tokens": self._places}
        if self._poolings[0] in parts:
            return tuple(parts[pooling](image) for pooling in self._poolings)
        features, read = self._features(image, STATISTICS_BLOCKS)
        found = {
            "mean": nn.functional.relu6(self.head(features)).float().mean(dim=(2, 3)),
            "mean+std": torch.cat([_statistics(one.flatten(2)) for one in read], dim=1),
        }
        return tuple(found[pooling] for pooling in self._poolings)

    def _features(self, image: Tensor, wanted: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """The last features of normalised pixels (n, 3, size, size), and float32 ones of the wanted blocks."""
        features = nn.functional.relu6(self.stem(image.to(self.get_buffer("mean").dtype)))
        read = []
        for number, block in enumerate(self.blocks, start=1):
            features = block(features)
            if number in wanted:
                read.append(features.float())
        return features, read

    def _stretches(self, image: Tensor) -> Tensor:
        """The whole image in other proportions: (n, 2, 432)."""
        found = []
        for size in self._sizes:
            small = nn.functional.adaptive_avg_pool2d(image, size)
            means = [one.mean(dim=(2, 3)) for one in self._features(small, WINDOWS_BLOCKS)[1]]
            found.append(torch.cat([nn.functional.normalize(one) for one in means], dim=1))
        return torch.stack(found, dim=1)

    def _places(self, image: Tensor) -> Tensor:
        """Of the image, and of it at half its size: (n, places of both * channels), place by place."""
        both = [image, nn.functional.avg_pool2d(image, 2)]
        maps = [self._features(one, (PLACES_BLOCK,))[1][0].permute(0, 2, 3, 1) for one in both]
        return torch.cat([one.flatten(1) for one in maps], dim=1)

    def _windows(self, image: Tensor) -> Tensor:
        _, whole = self._features(nn.functional.avg_pool2d(image, 2), WINDOWS_BLOCKS)
        _, parts = self._features(image, WINDOWS_BLOCKS)
        found = []
        for small, large in zip(whole, parts, strict=True):
            means = [small.mean(dim=(2, 3))]
            for cells in WINDOWS.windows:
                x, y, width, height = (side * large.shape[3] // WINDOWS.cells for side in cells)
                means.append(large[:, :, y : y + height, x : x + width].mean(dim=(2, 3)))
            found.append(nn.functional.normalize(torch.stack(means, dim=1), dim=2))
        return torch.cat(found, dim=2)


def _statistics(features: Tensor) -> Tensor:
    """The mean and the standard deviation of each channel, of unit length each: (n, 2c) of (n, c, places)."""
    parts = features.mean(dim=2), features.std(dim=2, correction=0)
    return torch.cat([nn.functional.normalize(part) for part in parts], dim=1)


class _Convolution(nn.Module):
    """A convolution with batch normalisation; of even sides, padded as TensorFlow does."""

    def __init__(self, channels: int, wanted: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, wanted, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(wanted, eps=1e-3)
        missing = kernel - stride
        before, after = missing // 2, missing - missing // 2
        self._padding = (before, after, before, after)

    def forward(self, image: Tensor) -> Tensor:
        padded = nn.functional.pad(image, self._padding) if any(self._padding) else image
        answer: Tensor = self.norm(self.conv(padded))
        return answer


class _Block(nn.Module):
    """Inverted residual: channels are multiplied, convolved one by one, and reduced."""

    def __init__(self, channels: int, wanted: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = channels * expansion
        self.expand = _Convolution(channels, inside, 1) if expansion > 1 else None
        self.depthwise = _Convolution(inside, inside, kernel, stride=stride, groups=inside)
        self.project = _Convolution(inside, wanted, 1)
        self._adds = stride == 1 and channels == wanted

    def forward(self, image: Tensor) -> Tensor:
        inside = image if self.expand is None else nn.functional.relu6(self.expand(image))
        answer: Tensor = self.project(nn.functional.relu6(self.depthwise(inside)))
        return image + answer if self._adds else answer


def open_efficientnet(checkpoint: Checkpoint, taps: Sequence[Tap], preprocessing: Preprocessing) -> EfficientNet:
    """The network with its weights, in float32. Raises ModelUnsupported where one is missing or has another shape."""
    from safetensors.torch import load_file

    network = EfficientNet(preprocessing, checkpoint.dim("mean"), taps)
    stored = {name: tensor for file in checkpoint.files.weights for name, tensor in load_file(file).items()}
    wanted = network.state_dict()
    lacking = [name for name, tensor in wanted.items() if name not in stored or stored[name].shape != tensor.shape]
    if bad := [name for name in lacking if not name.endswith("num_batches_tracked")]:  # only training reads it
        raise ModelUnsupported(f"{checkpoint.files.name}: the checkpoint lacks {', '.join(bad[:5])}. Get it again.")
    network.load_state_dict(stored, strict=False)
    return network.eval().requires_grad_(False)
