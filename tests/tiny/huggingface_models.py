"""Tiny Hugging Face classifiers with random weights, and what their authors' own code answers.

A process of its own, whose last line is JSON:
`python -m tests.tiny.huggingface_models served FOLDER` writes a checkpoint whose raw config.json says little of how it
is used, and prints its answers, and how many tokens each architecture was found to hold;
`... torch2onnx|torch2pt2 FOLDER` converts every architecture and prints its largest difference to its source.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from lockstep.exporters.conversion import Framework
from tests.tiny.texts import VOCABULARY

POSITIONS = 40
MODEL_MAX_LENGTH = 24
TEXTS = (
    "word1 word2 word3",
    "word4 [PAD] word5 [PAD] word6",
    "word7 word8 [PAD]",
    " ".join(f"word{number % 40}" for number in range(60)),
    "word9",
)
LONG_ROW = list(range(1, 36))

_ENCODER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": POSITIONS,
}
_DECODER = _ENCODER | {"num_key_value_heads": 2}
_GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": POSITIONS}
_XLNET = {"d_model": 16, "d_inner": 24, "n_layer": 1, "n_head": 2}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": _ENCODER,
    "distilbert": {"dim": 16, "hidden_dim": 24, "n_layers": 1, "n_heads": 2, "max_position_embeddings": POSITIONS},
    "roberta": _ENCODER,
    "mpnet": _ENCODER,
    "electra": _ENCODER,
    "albert": _ENCODER | {"embedding_size": 8},
    "deberta-v2": _ENCODER | {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_biased_input": False},
    "gpt2": _GPT,
    "openai-gpt": _GPT,
    "opt": _ENCODER | {"ffn_dim": 24, "word_embed_proj_dim": 16},
    "xlnet": _XLNET,
    "llama": _DECODER | {"pad_token_id": -1},
    "mistral": _DECODER,
    "bloom": {"hidden_size": 16, "n_layer": 1, "n_head": 2},
}
HELD: dict[str, int | None] = dict.fromkeys(ARCHITECTURES, POSITIONS) | {
    # Positions are counted from the padding id plus one, which is 2.
    **dict.fromkeys(("roberta", "mpnet"), POSITIONS - 2),
    # Relative, rotary or no positions: nothing runs out.
    **dict.fromkeys(("deberta-v2", "xlnet", "llama", "mistral", "bloom")),
}


def model(kind: str, **more: Any) -> Any:
    """Return a classifier with weights wide enough that every part of it matters to the answer."""
    import torch
    import transformers

    torch.manual_seed(0)
    settings = {"vocab_size": VOCABULARY, "initializer_range": 0.3, **ARCHITECTURES[kind], **more}
    config = transformers.AutoConfig.for_model(kind, **settings)
    return transformers.AutoModelForSequenceClassification.from_config(config).eval()


def served(folder: Path) -> dict[str, Any]:
    """Write a decoder in half precision, multi-label, cut on the left, without padding id or names of labels."""
    import torch
    import transformers

    from tests.tiny.texts import write_tokenizer

    made = model("gpt2", num_labels=3, problem_type="multi_label_classification")
    made.to(torch.bfloat16).save_pretrained(folder)
    _rewrite(folder / "config.json", return_dict=False)
    _rewrite(write_tokenizer(folder / "tokenizer.json"), truncation=None)
    settings = {"truncation_side": "left", "model_max_length": MODEL_MAX_LENGTH, "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"})
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    own = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, return_dict=True
    ).eval()

    def answer(ids: Any) -> list[float]:
        with torch.inference_mode():
            answered: list[float] = torch.sigmoid(own(ids).logits)[0].tolist()
        return answered

    texts = [tokenizer(text, truncation=True, return_tensors="pt")["input_ids"] for text in TEXTS]
    return {
        "probabilities": [answer(ids) for ids in texts],
        "tokens": [ids.shape[1] for ids in texts],
        "long row": answer(torch.tensor([LONG_ROW[-MODEL_MAX_LENGTH:]])),
    }


def overruled(folder: Path) -> str:
    """Return how a cased tokenizer.json is refused beside a tokenizer_config.json that lower-cases."""
    import transformers

    from lockstep.exporters.conversion import SourceError
    from lockstep.exporters.sources.huggingface_config import describe
    from lockstep.exporters.sources.loaded_config import DescribeJob

    model("bert").save_pretrained(folder)
    characters = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abistSO,"]
    tokens = {token: number for number, token in enumerate([*characters, *(f"##{one}" for one in characters[5:])])}
    transformers.BertTokenizer(vocab=tokens, do_lower_case=False).save_pretrained(folder)
    job = DescribeJob(checkpoint=folder, tokenizer=folder / "tokenizer.json", max_tokens=None, threads=1)
    describe(job)
    _rewrite(folder / "tokenizer_config.json", do_lower_case=True)
    try:
        describe(job)
    except SourceError as error:
        return str(error)
    return "not refused"


def positions() -> dict[str, int | None]:
    from lockstep.exporters.sources.huggingface_config import held_positions

    return {kind: held_positions(model(kind)) for kind in ARCHITECTURES}


def conversions(target: str, folder: Path) -> dict[str, float]:
    from lockstep.exporters.sources.huggingface_source import open_source
    from tests.tiny.varieties import Answers, by_onnxruntime, by_torch, difference, files

    apart = {}
    for kind in ARCHITECTURES:
        work = folder / kind
        model(kind).save_pretrained(work)
        described = files(kind, Framework.HUGGINGFACE, work, None)
        source = Answers(open_source(described))
        conversion = import_module(f"lockstep.exporters.converters.{target}").convert(
            described, work, lambda text: None
        )
        apart[kind] = difference(source, conversion, work, by_torch if target == "torch2pt2" else by_onnxruntime)
    return apart


def _rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def main(what: str, *rest: str) -> Any:
    if what == "served":
        folder = Path(rest[0])
        return served(folder) | {"positions": positions(), "overruled": overruled(folder.with_name("overruled"))}
    return conversions(what, Path(rest[0]))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
