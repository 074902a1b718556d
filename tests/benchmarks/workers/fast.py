"""fastembed on the int8 graph that sentence-transformers exports, taken as a model of one's own."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.workers.serve import Loaded, Options, as_text, main


def load(options: Options) -> Loaded:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    folder = Path(options["made"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    pooling = json.loads((folder / "1_Pooling/config.json").read_text(encoding="utf-8"))
    TextEmbedding.add_custom_model(
        model="ours",
        pooling=PoolingType.CLS if pooling.get("pooling_mode_cls_token") else PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="ours"),
        dim=config["hidden_size"],
        model_file="onnx/model_qint8_avx512_vnni.onnx",
    )
    model = TextEmbedding("ours", threads=options["threads"], specific_model_path=str(folder))

    def encode(texts: list[str], batch: int) -> Any:
        return np.stack(list(model.embed(texts, batch_size=batch)))

    return Loaded(encode, as_text)


if __name__ == "__main__":
    main(load)
