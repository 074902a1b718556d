"""What a layer may be made for, and how runs are formed there. A GPU's figures are computed, not measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """`together`: tokens that a run has where texts may share it; `texts`: how many may. What work costs, in tokens of
    a run of many: `attention` · hidden other tokens as much as one token more, and a run `run` beside its texts.
    `alone`: one run at a time, however many cores there are. `warm`: tokens of a run that the start makes."""

    together: int
    texts: int
    attention: float
    run: float
    alone: bool = False
    warm: int = 0


# With 16 tokens a token takes twice as long as with 128, and from 256 on nothing is gained, while the next caller waits
# longer. Costs as measured on bge-m3's geometry (hidden 1,024): 671 tokens a second at 512 tokens and 152 at 8,192; 336
# at 8 tokens and 937 at 128.
CPU = Target(together=256, texts=256, attention=1.7, run=16)

# The host queues 270 kernels a run, in 2 to 3 ms. 16,384 tokens of bge-m3 are 10 to 23 TFLOP, on an L4 a few tenths
# of a second: of that those milliseconds are next to nothing, the products have all the rows that they gain by, and a
# text of the whole context has room beside others; and so long the next caller waits. The operator wants a run's texts
# times the longest of them as integers: of 512 texts 17 MB at most. Products and attention run at like rates, so that a
# token costs what its operations do: 24 · hidden² a layer, and 4 · hidden for each other token. The full run at the
# start fetches cuBLAS' kernels and nearly all the memory that any run will need, or fails.
CUDA = Target(together=16_384, texts=512, attention=6.0, run=256, alone=True, warm=16_384)

TARGETS = {"cpu": CPU, "cuda": CUDA}
