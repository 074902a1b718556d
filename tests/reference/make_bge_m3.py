"""Makes `bge_m3_small/`: bge-m3's repository at small geometry, and what transformers and torch answer with it.

Run with torch 2.13 (CPU), transformers 5.23, tokenizers, blingfire and sentencepiece: python
tests/reference/make_bge_m3.py OUT. The weights are random, with a few channels as wide as a trained XLM-R's. Layout,
names and formats are those of BAAI/bge-m3: pytorch_model.bin, sparse_linear.pt and colbert_linear.pt as torch.save
writes them; tokenizer.json with sentencepiece's own normalization (nmt_nfkc, compiled), with special tokens added to a
unigram vocabulary (4,000 of XLM-R's pieces), and with truncation and padding set. Formulas: FlagEmbedding 1.4.2,
m3/modeling.py.
"""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece  # type: ignore[import-not-found]
import torch
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer
from transformers import XLMRobertaConfig, XLMRobertaModel  # type: ignore[import-not-found]

from model_layer import xlmr

PIECES, HIDDEN, POSITIONS = 4001, 32, 8194
TEXTS = [
    "the quick brown fox",
    "",
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "敏捷的棕色狐狸跳过了懒狗。",
    "الثعلب البني السريع يقفز فوق الكلب الكسول",
    "a a a a b b b",
    "one. " * 300,
    "the " * 8190,
]


def tokenizer() -> str:
    """XLM-R's first pieces and all that the texts need, `<mask>` behind them, in the shape of the hub's file."""
    values: dict[str, Any] = json.loads(xlmr.tokenizer())
    vocabulary = values["model"]["vocab"]
    needed = {piece for each in Tokenizer.from_str(json.dumps(values)).encode_batch(TEXTS[:-2]) for piece in each.ids}
    rest = [piece for piece in range(PIECES - 1) if piece not in needed]
    kept = sorted(needed | set(rest[: PIECES - 1 - len(needed)]))
    values["model"]["vocab"] = [*(vocabulary[piece] for piece in kept), vocabulary[-1]]
    values["added_tokens"][-1] |= {"id": PIECES - 1, "lstrip": True}
    values["normalizer"]["normalizers"][0] = {"type": "Precompiled", "precompiled_charsmap": charsmap()}
    values["truncation"] = {"direction": "Right", "max_length": 8192, "strategy": "LongestFirst", "stride": 0}
    values["padding"] = {
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>",
    }  # fmt: skip
    return json.dumps(values, ensure_ascii=False)


def charsmap() -> str:
    """The normalization that XLM-R was trained with, as sentencepiece compiles it into any model."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:-2]), model_writer=model, vocab_size=1000, character_coverage=1.0,
        hard_vocab_limit=False, normalization_rule_name="nmt_nfkc", minloglevel=2,
    )  # fmt: skip
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    return base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    config = XLMRobertaConfig(
        vocab_size=PIECES,
        hidden_size=HIDDEN,
        num_attention_heads=2,
        intermediate_size=64,
        num_hidden_layers=2,
        max_position_embeddings=POSITIONS,
        layer_norm_eps=1e-5,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        initializer_range=0.2,
    )
    model = XLMRobertaModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            if "embeddings" in name and name.endswith("embeddings.weight"):
                parameter.normal_(0, 1.0)
            if "attention" in name and name.endswith("dense.weight"):
                parameter.mul_(4)  # so that <s>, whose state is the vector, is made of the text
            if name.endswith("LayerNorm.weight"):
                parameter.normal_(1, 0.1)
                if not name.startswith("encoder.layer.1.output"):
                    parameter[3] = 6.0  # an outlier channel, not in the vectors themselves
    sparse, colbert = torch.nn.Linear(HIDDEN, 1), torch.nn.Linear(HIDDEN, HIDDEN)
    with torch.no_grad():
        sparse.bias.add_(1)  # so that most tokens have a weight, and some have none
    torch.save(model.state_dict(), out / "pytorch_model.bin")
    for head, name in ((sparse, "sparse_linear.pt"), (colbert, "colbert_linear.pt")):
        torch.save(head.half().state_dict(), out / name)  # half precision, as the hub's are
        head.float()
    (out / "config.json").write_text(json.dumps(config.to_dict(), indent=1) + "\n")
    (out / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (out / "1_Pooling/config.json").write_text(json.dumps(pooling, indent=1) + "\n")
    (out / "tokenizer.json").write_text(tokenizer(), encoding="utf-8")

    encoder = Tokenizer.from_file(str(out / "tokenizer.json"))
    batch = encoder.encode_batch(TEXTS[:-1])  # as FlagEmbedding runs them: padded to the longest
    with torch.no_grad():
        padded = model(
            input_ids=torch.tensor([each.ids for each in batch]),
            attention_mask=torch.tensor([each.attention_mask for each in batch]),
        ).last_hidden_state[:, 0]
    arrays: dict[str, Any] = {"padded": torch.nn.functional.normalize(padded, dim=-1).numpy()}
    encoder.no_padding()
    for index, text in enumerate(TEXTS):
        ids = encoder.encode(text).ids
        with torch.no_grad():
            states = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).last_hidden_state[0]
            arrays[f"{index}.dense"] = torch.nn.functional.normalize(states[0], dim=-1).numpy()
            arrays[f"{index}.sparse"] = torch.relu(sparse(states))[:, 0].numpy()
            rows = torch.nn.functional.normalize(colbert(states[1:]), dim=-1).numpy()
            arrays[f"{index}.multi_vector"] = rows[:40]
            arrays[f"{index}.last_row"] = rows[-1]  # of </s>
        arrays[f"{index}.ids"] = np.array(ids, np.int32)
    np.savez_compressed(out / "reference.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
