"""sentence-transformers in float32 on torch, or (`backend` onnx) its int8 export on onnxruntime."""

from pathlib import Path
from typing import Any

from tests.benchmarks.workers.serve import Loaded, Options, as_text, main

_QUANTIZED = "onnx/model_qint8_avx512_vnni.onnx"  # as its export names it


def load(options: Options) -> Loaded:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(options["threads"])
    if options["backend"] == "onnx":
        import onnxruntime

        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = options["threads"]
        how: dict[str, Any] = {"file_name": _QUANTIZED, "provider": "CPUExecutionProvider", "session_options": session}
        model = SentenceTransformer(options["made"], backend="onnx", model_kwargs=how)
    else:
        model = SentenceTransformer(options["checkpoint"], device="cpu")

    def encode(texts: list[str], batch: int) -> Any:
        return model.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)

    return Loaded(encode, as_text)


def prepare(options: Options) -> None:
    """The int8 export of its own making, for CPUs with AVX-512 VNNI, in `options["made"]`."""
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    folder = Path(options["made"])
    model = SentenceTransformer(options["checkpoint"], backend="onnx", model_kwargs={"export": True})
    model.save_pretrained(str(folder))
    export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(folder))
    for each in (folder / "onnx").glob("model.onnx*"):  # float32, of no further use
        each.unlink()


if __name__ == "__main__":
    main(load, prepare)
