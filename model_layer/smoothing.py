"""Factors per channel that even out what a quantized matrix reads, measured on the calibration texts.

Activations have one scale for a whole text, and a few of an encoder's channels are 10 to 20 times as wide as the
others: they alone cost all-minilm-l6-v2 more cosine than all other quantization together (0.9936; with factors 0.9980).
So what a matrix reads is divided by its factors, and the matrix's rows are multiplied by them (SmoothQuant, Xiao et
al., arXiv:2211.10438, equation 4). Attention's output is left as it is: factors there changed nothing measurable.
"""

import numpy as np
import numpy.typing as npt

from model_layer import graph
from model_layer.calibration import Ranges
from model_layer.catalog import Geometry
from model_layer.sources import Source, layer_prefix, shapes

Array = npt.NDArray[np.float32]

# How much of a channel's width goes into its factor, the rest into the weights'. 0.7, 0.8 and 0.9 measured alike.
ALPHA = 0.8

# A channel that lies still on the calibration texts may wake on another: its width counts as a tenth of the median at
# least, and no factor is further from 1 than this, so that it cannot swamp the text's one scale.
_QUIETEST = 0.1
_MOST = 8.0
SMOOTHED = tuple(group for group in graph.GROUPS if group != ("attention.output.dense",))


def factors(source: Source, geometry: Geometry, ranges: Ranges) -> graph.Factors:
    """The factors of every smoothed matrix, float32 [its input channels]; matrices that read the same share theirs."""
    widths = {matrix: np.maximum(-low, high) for matrix, (low, high) in ranges.items()}
    found: dict[str, Array] = {}
    for index in range(geometry.layers):
        for group in SMOOTHED:
            names = [layer_prefix(index) + name for name in group]
            columns = [
                np.abs(source.tensor(f"{name}.weight", *shapes(geometry)[f"{part}.weight"])).max(axis=0)
                for name, part in zip(names, group, strict=True)
            ]
            weights = np.maximum(np.max(columns, axis=0), 1e-5)
            width = np.maximum(widths[names[0]], max(_QUIETEST * float(np.median(widths[names[0]])), 1e-5))
            factor = width**ALPHA / weights ** (1 - ALPHA)
            factor = np.clip(factor / np.exp(np.log(factor).mean()), 1 / _MOST, _MOST)
            # To a power of two: a last bit that another processor's kernels round otherwise changes no weight, and the
            # multiplication is exact.
            found |= dict.fromkeys(names, np.exp2(np.rint(np.log2(factor))).astype(np.float32))
    return found
