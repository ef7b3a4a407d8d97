"""An LSTM language model as a model of Transformers; it needs torch and transformers alone.

`companion export RUN --format transformers` writes a folder with weights, tokenizer and this file:

    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)

`generate` with samples or beams works, and so does an evaluation harness that calls the model.

Shape legend: B batch, T time, L layers, H hidden units of the widest layer, V vocabulary.
"""

import dataclasses
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

# What earlier releases call past_key_values, later ones call cache.
_FIELDS = {field.name for field in dataclasses.fields(CausalLMOutputWithPast)}
CACHE = "cache" if "cache" in _FIELDS else "past_key_values"


class TrainedToPredictConfig(PretrainedConfig):  # type: ignore[misc]
    """Sizes of the model."""

    model_type = "trained_to_predict_lstm"

    def __init__(
        self,
        vocab_size: int = 2,
        embedding_size: int = 1,
        layer_sizes: tuple[int, ...] | list[int] = (1,),
        tie_word_embeddings: bool = False,
        use_cache: bool = True,
        **others: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.embedding_size = embedding_size
        self.layer_sizes = list(layer_sizes)
        self.hidden_size = self.layer_sizes[-1]
        self.use_cache = use_cache
        self.num_hidden_layers = 1  # of the cache, which holds all layers' states as one
        super().__init__(tie_word_embeddings=tie_word_embeddings, **others)


class TrainedToPredictLSTM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """Embedding, LSTM layers, output layer.

    Transformers' cache holds keys and values of all tokens. Here it holds, at the last token, the
    layers' h and c, of shape (B, L, T, H). What stands at those before, zeros or older states, is
    not read, so the cache cannot be cut back: decoding that guesses tokens ahead is refused.
    """

    config_class = TrainedToPredictConfig
    _tied_weights_keys = {"output.weight": "embedding.weight"}  # noqa: RUF012
    _no_split_modules = ["LSTM"]  # noqa: RUF012
    _is_stateful = True  # `generate` then refuses to guess tokens ahead and take them back

    def __init__(self, config: TrainedToPredictConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        before = [config.embedding_size, *config.layer_sizes[:-1]]
        self.layers = nn.ModuleList(map(nn.LSTM, before, config.layer_sizes))
        self.output = nn.Linear(config.layer_sizes[-1], config.vocab_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Left as torch drew them: the weights are loaded."""

    def get_input_embeddings(self) -> nn.Module:
        """The embedding."""
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the embedding."""
        self.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        """The output layer."""
        return self.output

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the output layer."""
        self.output = new_embeddings

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V) of the token after each input, and the state in a cache.

        Where attention_mask is 0 the text has not begun: the state stays at zero, so texts that
        are filled up on the left are read as they are alone. labels: the inputs again, -100 where
        nothing is to be predicted; the loss is the mean over the others.
        """
        cache = past_key_values if cache is None else cache
        time = input_ids.shape[1]
        read = cache.get_seq_length() if cache is not None else 0
        sizes = self.config.layer_sizes
        hidden = cell = self.embedding.weight.new_zeros(
            len(input_ids), len(sizes), max(sizes)
        )  # fmt: skip
        if read:
            stored = cache.layers[0]
            hidden, cell = stored.keys[:, :, -1], stored.values[:, :, -1]
        mask = None if attention_mask is None else attention_mask[:, -time:].bool()
        if mask is None or bool(mask.all()):
            outputs, hidden, cell = self._read(input_ids, hidden, cell)
        else:
            parts = []
            for t in range(time):
                kept = mask[:, t, None, None]
                output, hidden, cell = self._read(input_ids[:, t : t + 1], hidden, cell)
                hidden, cell = hidden * kept, cell * kept
                parts.append(output)
            outputs = torch.cat(parts, dim=1)
        logits = self.output(outputs[:, -logits_to_keep:] if logits_to_keep else outputs)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, -logits.shape[1] :][:, 1:].flatten()
            )
        if self.config.use_cache if use_cache is None else use_cache:
            cache = DynamicCache(config=self.config) if cache is None else cache
            before = hidden.new_zeros(*hidden.shape[:2], time - 1, hidden.shape[2])
            cache.update(
                torch.cat([before, hidden.unsqueeze(2)], dim=2),
                torch.cat([before, cell.unsqueeze(2)], dim=2),
                0,
            )
        return CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE: cache})

    def _read(
        self, ids: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The last layer's outputs (B, T, H), and all layers' states (B, L, H) after the ids."""
        outputs = self.embedding(ids.T)
        after = []
        for index, layer in enumerate(self.layers):
            size = layer.hidden_size
            state = [part[None, :, index, :size].contiguous() for part in (hidden, cell)]
            outputs, state = layer(outputs, tuple(state))
            unused = (0, max(self.config.layer_sizes) - size)
            after.append([nn.functional.pad(part[0], unused) for part in state])
        h, c = (torch.stack(parts, dim=1) for parts in zip(*after, strict=True))
        return outputs.transpose(0, 1), h, c
