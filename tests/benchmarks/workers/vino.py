"""OpenVINO's own API on our float32 graph, which has no mask: quantized by NNCF, statically (activations calibrated on
real texts) or dynamically (weights alone, activations as they come)."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.workers.serve import Loaded, Options, Texts, main

_GROUP = 512  # tokens of equally long texts in one request at most


def load(options: Options) -> Loaded:
    import openvino

    core = openvino.Core()
    how: dict[str, Any] = {"INFERENCE_NUM_THREADS": options["threads"], "PERFORMANCE_HINT": options["hint"]}
    if options["hint"] == "THROUGHPUT":
        how["NUM_STREAMS"] = options["streams"]
    model = core.compile_model(Path(options["made"]) / "model.xml", "CPU", how)
    queue = openvino.AsyncInferQueue(model, options.get("streams", 1))
    size: int = model.output("dense").get_partial_shape()[1].get_length()

    def encode(requests: list[tuple[list[int], Any]], batch: int) -> Any:
        vectors = np.empty((sum(len(indexes) for indexes, _ in requests), size), np.float32)

        def keep(request: Any, indexes: list[int]) -> None:
            vectors[indexes] = request.get_tensor("dense").data

        queue.set_callback(keep)
        for indexes, ids in requests:
            queue.start_async({"input_ids": ids}, indexes)
        queue.wait_all()
        return vectors

    return Loaded(encode, _requests)


def _requests(texts: Texts) -> list[tuple[list[int], Any]]:
    """Equally long texts in company, the longest first: the best that was found for it (tests/benchmarks/NOTES.md)."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, ids in enumerate(texts):
        by_length[len(ids)].append(index)
    found = []
    for length, indexes in sorted(by_length.items(), reverse=True):
        most = max(1, _GROUP // length)
        for start in range(0, len(indexes), most):
            group = indexes[start : start + most]
            found.append((group, np.array([texts[index] for index in group], np.int64)))
    return found


def prepare(options: Options) -> None:
    """The quantized model in `options["made"]`."""
    import nncf
    import openvino

    model = openvino.Core().read_model(Path(options["graph"]) / "model.onnx")
    if options["static"]:
        samples = nncf.Dataset(options["calibration"], lambda ids: {"input_ids": np.array([ids], np.int64)})
        model = nncf.quantize(
            model,
            samples,
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(options["calibration"]),
            fast_bias_correction=True,
        )
    else:
        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(model, Path(options["made"]) / "model.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main(load, prepare)
