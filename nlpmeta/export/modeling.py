"""Sequence classification on a pooled encoder, for ``transformers``; exported models carry a copy of this file.

It needs torch and transformers and nothing else. ``import nlpmeta.export.modeling`` makes it known to the Auto classes.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class NLPMetaConfig(PretrainedConfig):
    """A configuration for each encoder and what happens around them.

    ``normalise``: embeddings have unit length; ``pooling``: ``mean``, ``cls`` or ``last``; ``max_tokens``: what a text
    is cut to, its last ``end_tokens`` kept; ``shares``: of each linear layer, whose probabilities are averaged;
    ``mixture_temperature``: of that mean.

    Where a text may have several labels (``problem_type`` is ``multi_label_classification``) ``thresholds`` holds the
    probability from which on each is given; ``n_prototypes``: of each head that compares a text with prototypes;
    ``prototype_shares``: what the log-odds of each of these heads are multiplied by.
    """

    model_type = "nlpmeta"

    def __init__(
        self,
        encoders: Sequence[dict[str, Any]] = (),
        encoder_options: dict[str, Any] | None = None,
        normalise: bool = True,
        pooling: str = "mean",
        max_tokens: int = 128,
        end_tokens: int = 1,
        shares: Sequence[float] = (1.0,),
        mixture_temperature: float = 1.0,
        thresholds: Sequence[float] = (),
        n_prototypes: int = 0,
        prototype_shares: Sequence[float] = (),
        **kwargs: Any,  # noqa: ANN401  # what every configuration of transformers takes
    ) -> None:
        self.encoders, self.encoder_options = list(encoders), dict(encoder_options or {})
        self.normalise, self.max_tokens, self.end_tokens = normalise, max_tokens, end_tokens
        self.pooling = pooling
        self.shares, self.mixture_temperature = list(shares), mixture_temperature
        self.thresholds, self.n_prototypes = list(thresholds), n_prototypes
        self.prototype_shares = list(prototype_shares)
        super().__init__(**kwargs)


class NLPMetaForSequenceClassification(PreTrainedModel):
    """Linear layers on the embeddings of one to three encoders: their tokens pooled, scaled to unit length.

    Of several labels per text, ``prototypes`` hold mean embeddings over a temperature: those of the labels first.
    """

    config_class = NLPMetaConfig
    base_model_prefix = "encoders"
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: NLPMetaConfig) -> None:
        super().__init__(config)
        configs = [AutoConfig.for_model(**values) for values in config.encoders]
        self.encoders = nn.ModuleList(AutoModel.from_config(each, **config.encoder_options) for each in configs)
        width = sum(each.hidden_size for each in configs)
        self.classifier = nn.Linear(width, len(config.shares) * len(config.id2label or {}))
        if config.prototype_shares:
            self.prototypes = nn.Linear(width, len(config.prototype_shares) * config.n_prototypes, bias=False)
        self.post_init()

    def forward(  # noqa: D102
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if input_ids.shape[1] > self.config.max_tokens:
            input_ids, mask = self._cut(input_ids, mask)
        parts = [self._embed(encoder, input_ids, mask) for encoder in self.encoders]
        scores, several = self.classifier(torch.cat(parts, dim=1)), bool(self.config.prototype_shares)
        logits = self._log_odds(scores, parts) if several else self._mix(scores)
        loss = None
        if labels is not None and several:
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        elif labels is not None:
            loss = nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _mix(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores of all layers ``(n, n_layers * n_way)`` to the logarithm of their mean, ``(n, n_way)``."""
        shares = torch.tensor(self.config.shares, dtype=scores.dtype, device=scores.device)
        each = scores.unflatten(1, (len(shares), -1)).log_softmax(2) + shares.log().view(1, -1, 1)
        logits: torch.Tensor = each.logsumexp(1) / self.config.mixture_temperature
        return logits

    def _log_odds(self, scores: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Of each label by itself, ``(n, n_labels)``: to ``scores`` come its log-odds among the prototypes of heads."""
        unit = torch.cat([nn.functional.normalize(part, dim=1) for part in parts], dim=1)
        shares = torch.tensor(self.config.prototype_shares, dtype=scores.dtype, device=scores.device)
        logs = self.prototypes(unit).unflatten(1, (len(shares), -1)).log_softmax(2)[:, :, : scores.shape[1]]
        odds = logs - torch.log1p(-logs.exp().clamp(max=1 - 1e-6)) + math.log(max(self.config.n_prototypes - 1, 1))
        logits: torch.Tensor = (scores + (odds * shares.view(1, -1, 1)).sum(1)).clamp(-12, 12)
        return logits

    def _embed(self, encoder: nn.Module, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        if self.config.pooling == "mean":
            weights = mask.unsqueeze(2).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        else:
            last = torch.arange(1, mask.shape[1] + 1, device=mask.device)
            place = (mask if self.config.pooling == "cls" else mask * last).argmax(1)
            pooled = hidden[torch.arange(len(hidden), device=mask.device), place]
        return nn.functional.normalize(pooled, dim=1) if self.config.normalise else pooled

    def _cut(self, input_ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first tokens and, in the last places, those that end a text, as its tokenizer would cut it."""
        width, ends = self.config.max_tokens, self.config.end_tokens
        lengths = mask.sum(1, keepdim=True)
        places = (lengths - ends + torch.arange(ends, device=input_ids.device)).clamp(min=0)
        cut = torch.cat([input_ids[:, : width - ends], input_ids.gather(1, places)], dim=1)
        is_long = lengths > width
        return torch.where(is_long, cut, input_ids[:, :width]), mask[:, :width]


AutoConfig.register("nlpmeta", NLPMetaConfig, exist_ok=True)
AutoModelForSequenceClassification.register(NLPMetaConfig, NLPMetaForSequenceClassification, exist_ok=True)
