"""infinity's engine, without its HTTP server: float32 on torch, its dynamic int8 on torch, or the int8 graph that
sentence-transformers exports."""

from typing import Any

import numpy as np

from tests.benchmarks.workers.serve import Loaded, Options, as_text, main


def load(options: Options) -> Loaded:
    import torch
    from infinity_emb import EngineArgs
    from infinity_emb.sync_engine import SyncEngineArray

    torch.set_num_threads(options["threads"])
    engines: dict[int, Any] = {}  # by batch size, of which an engine has one

    def encode(texts: list[str], batch: int) -> Any:
        if batch not in engines:
            engines.clear()
            arguments = EngineArgs(
                model_name_or_path=options["checkpoint"],
                dtype=options["dtype"],
                device="cpu",
                batch_size=batch,
                bettertransformer=False,
                model_warmup=False,
            )
            engines[batch] = SyncEngineArray.from_args([arguments])
        vectors, _ = engines[batch].embed(model=options["checkpoint"], sentences=texts).result()
        return np.stack(vectors)

    return Loaded(encode, as_text)


if __name__ == "__main__":
    main(load)
