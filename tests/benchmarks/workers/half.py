"""sentence-transformers in fp16 with torch's scaled_dot_product_attention, on `options["device"]`. As its `encode`, it
takes the longest texts first, and pads those of a batch to the longest; but it is given token ids, as ours is, and not
text."""

from typing import Any

from tests.benchmarks.workers import kernels
from tests.benchmarks.workers.serve import Loaded, Options, Texts, main


def load(options: Options) -> Loaded:
    import torch
    from sentence_transformers import SentenceTransformer

    device, how = options["device"], {"attn_implementation": "sdpa"}
    model = SentenceTransformer(options["checkpoint"], device=device, model_kwargs=how).half().eval()

    def encode(texts: Texts, batch: int) -> Any:
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        found = torch.empty(len(texts), options["dimensions"], dtype=torch.float16, device=device)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            longest = len(texts[chosen[0]])
            padded = [texts[index] + [options["padding"]] * (longest - len(texts[index])) for index in chosen]
            ids = torch.tensor(padded, device=device)
            mask = torch.arange(longest) < torch.tensor([[len(texts[index])] for index in chosen])
            with torch.inference_mode():
                given = {"input_ids": ids, "attention_mask": mask.long().to(device)}
                found[torch.tensor(chosen, device=device)] = model(given)["sentence_embedding"]
        return found.float().cpu().numpy()

    return Loaded(encode)


if __name__ == "__main__":
    main(load, kernels.told_of(load, batch=32))
