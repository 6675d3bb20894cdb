"""A probability from a language model on this machine: how likely the two answers are, not what it writes."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .._core.device import resolve_device
from .._core.keys import RESPONSE_CLASSES
from .._core.progress import progress_bar
from .._data.batches import token_batches
from ..models._identity import weights_digest
from ..models._language_files import language_files
from ..models._language_open import open_config, open_network, open_tokenizer
from .prompts import Question, local_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTENT_FREE = ("Genes: N/A", "Genes:", "Genes: [MASK]")
"""Records that say nothing; what the model prefers for them is its preference for a word, not an answer."""


@dataclass(frozen=True)
class Scores:
    """What a model thinks of some records.

    Parameters
    ----------
    prob
        Probability of `sensitive`, corrected, shape `(n,)`.
    spread
        How far apart the log-odds are that the two orders of the answers give, before the correction, shape `(n,)`.
    bias
        Log-odds of `sensitive` for records without content, shape `(n,)`, which were taken off.
    """

    prob: np.ndarray
    spread: np.ndarray
    bias: np.ndarray


class LocalScorer:
    """A causal language model that is asked by comparing the likelihood of its answers; nothing it writes is parsed.

    Each question is put twice, with either answer named first. The log-odds of `sensitive` against `resistant` are averaged
    over both, and those of records without content are taken off (contextual calibration, :cite:p:`Zhao2021`).

    Parameters
    ----------
    network, tokenizer
        A causal model and its tokenizer, of transformers.
    longest
        Most tokens of a question and its answer.
    checkpoint
        What was loaded, for the record.
    """

    def __init__(self, network: Any, tokenizer: Any, longest: int, checkpoint: dict[str, Any]) -> None:
        self.network, self.tokenizer, self.longest, self.checkpoint = network, tokenizer, longest, checkpoint
        self._takes = set(inspect.signature(network.forward).parameters)

    @classmethod
    def open(cls, name: str) -> Self:
        """The model that `llm:<folder or repository>` names.

        Raises
        ------
        ValueError
            It cannot be opened, or predicts no next token.
        FileNotFoundError
            There is no such model.
        """
        files = language_files(name)
        config = open_config(files["config"])
        kinds = [str(kind) for kind in config.architectures or []]
        if kinds and not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
            msg = f"{name!r} (`model`) is a {kinds[0]}, which predicts no next word; expected a causal language model. Use it with tl.embed."
            raise ValueError(msg)
        tokenizer = open_tokenizer(files["tokenizer"])
        import torch

        where = resolve_device()
        dtype = "bfloat16" if where.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
        network = open_network(files["weights"], causal=True, dtype=dtype, quantize="no").to(where)
        checkpoint = {"file": files["weights"].name, "sha256": weights_digest(files)}
        return cls(network, tokenizer, int(getattr(config, "max_position_embeddings", 0) or 2**17), checkpoint)

    def score(self, drug: str, questions: Sequence[Question]) -> Scores:
        """Probability that each record is sensitive to a drug.

        Parameters
        ----------
        drug
            Name of the drug.
        questions
            The records, with the examples that are shown with each.

        Raises
        ------
        ValueError
            A question is longer than the model can read.
        """
        empty = [
            Question(text, examples)
            for examples in dict.fromkeys(q.examples for q in questions)
            for text in CONTENT_FREE
        ]
        asked = list(dict.fromkeys([*empty, *questions]))
        margins = dict(zip(asked, self._margins(drug, asked)))
        bias = {
            examples: np.mean([margins[Question(text, examples)].mean() for text in CONTENT_FREE])
            for examples in {q.examples for q in questions}
        }
        raw = np.array([margins[question] for question in questions]).reshape(-1, 2)
        taken = np.array([bias[question.examples] for question in questions])
        odds = raw.mean(axis=1) - taken
        return Scores(1 / (1 + np.exp(-np.clip(odds, -500, 500))), np.abs(raw[:, 0] - raw[:, 1]), taken)

    def _margins(self, drug: str, questions: Sequence[Question]) -> np.ndarray:
        """Log-odds of `sensitive` for either order of the answers, shape `(n, 2)`."""
        rows: list[list[int]] = []
        tails: list[int] = []
        for question in questions:
            for first, second in (RESPONSE_CLASSES, RESPONSE_CLASSES[::-1]):
                prompt, answer = local_prompt(drug, question, first, second)
                pair = [self._ids(prompt, answer, word) for word in RESPONSE_CLASSES]
                shared = next((i for i, (a, b) in enumerate(zip(*pair)) if a != b), min(map(len, pair)))
                rows += pair
                tails += [len(ids) - shared for ids in pair]  # what both answers begin with says nothing
        if (most := max(map(len, rows), default=0)) > self.longest:
            msg = f"A question has {most} tokens; {self.longest} fit into the model. Lower `n_genes` in tl.LLMOptions, or `examples`."
            raise ValueError(msg)
        odds = self._likelihood(rows, np.array(tails)).reshape(-1, 2, 2)
        return odds[:, :, 0] - odds[:, :, 1]

    def _ids(self, prompt: str, answer: str, word: str) -> list[int]:
        """Tokens of a question and an answer; models that were trained on conversations get one."""
        if getattr(self.tokenizer, "chat_template", None):
            turn = [{"role": "user", "content": prompt}]
            text = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) + word
            return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        return list(self.tokenizer(f"{prompt}\n{answer} {word}", verbose=False)["input_ids"])

    def _likelihood(self, rows: list[list[int]], tails: np.ndarray) -> np.ndarray:
        """Log-likelihood of the last `tails` tokens of each row, shape `(n_rows,)`."""
        from ..models._driver import batch_budget

        out = np.empty(len(rows))
        lengths = np.array([len(row) for row in rows])
        budget = batch_budget(next(self.network.parameters()).device, "auto")
        with progress_bar(total=len(rows), desc="scoring", unit=" answers") as bar:
            for chosen in token_batches(lengths, budget, max_waste=0.05):
                out[chosen] = self._batch([rows[i] for i in chosen], tails[chosen])
                bar.update(len(chosen))
        return out

    def _batch(self, rows: list[list[int]], tails: np.ndarray) -> np.ndarray:
        import torch

        width, most = max(map(len, rows)), int(tails.max()) + 1
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):  # on the right side, so that all answers end together
            ids[i, width - len(row) :] = torch.tensor(row)
            mask[i, width - len(row) :] = 1
        given = {"input_ids": ids, "attention_mask": mask}
        if "position_ids" in self._takes:
            given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        where = next(self.network.parameters()).device
        options = {"logits_to_keep": most} if "logits_to_keep" in self._takes else {}
        with torch.inference_mode():
            logits = self.network(**{name: x.to(where) for name, x in given.items()}, use_cache=False, **options).logits
            logs = torch.log_softmax(logits[:, -most:-1].float(), dim=-1).cpu()
        told = logs.gather(2, ids[:, 1 - most :, None])[:, :, 0]
        counted = torch.arange(most - 1, 0, -1)[None, :] <= torch.from_numpy(tails)[:, None]
        return torch.where(counted, told, 0.0).sum(1).double().numpy()
