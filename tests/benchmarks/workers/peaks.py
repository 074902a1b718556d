"""What this machine can do: onnxruntime's product of two large matrices, alone: INT8 or FP32 comes as batch size."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from tests.benchmarks.bound import COLUMNS, INNER, INT8, ROWS, TIMES
from tests.benchmarks.workers.serve import Loaded, Options, main


def load(options: Options) -> Loaded:
    draw = np.random.default_rng(1)
    weight = draw.integers(-127, 128, (INNER, COLUMNS)).astype(np.int8)
    left = draw.integers(0, 256, (ROWS, INNER)).astype(np.uint8)
    floats = left.astype(np.float32)
    int8 = _session("MatMulInteger", TensorProto.UINT8, weight, TensorProto.INT32, options["threads"])
    fp32 = _session("MatMul", TensorProto.FLOAT, weight.astype(np.float32), TensorProto.FLOAT, options["threads"])

    def encode(texts: object, batch: int) -> None:
        session, given = (int8, left) if batch == INT8 else (fp32, floats)
        for _ in range(TIMES):
            session.run(None, {"left": given})

    return Loaded(encode)


def _session(kind: str, given: int, weight: Any, result: int, threads: int) -> onnxruntime.InferenceSession:
    graph = helper.make_graph(
        [helper.make_node(kind, ["left", "weight"], ["product"])],
        "peak",
        [helper.make_tensor_value_info("left", given, [ROWS, INNER])],
        [helper.make_tensor_value_info("product", result, [ROWS, COLUMNS])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), session, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main(load)
