"""Causal language models of Hugging Face's Transformers behind the interface of all our models.

    library = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model = HuggingFaceModel(library)
    tokenizer = HuggingFaceTokenizer(transformers.AutoTokenizer.from_pretrained(folder))

Scoring, decoders, beam search, calibration, the rank of a secret and our training loops then work
on it unchanged. What Transformers calls past_key_values, the keys and values of all layers at all
tokens read so far, is the state.

Shape legend: B batch, T time, S tokens read before, V vocabulary.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from companion.models.base import LanguageModel, evaluation_mode
from companion.text.tokenizers import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float, Int

#: One for keys and one for values of each layer, each of shape (B, heads, S, size).
State = tuple[Tensor, ...]


def transformers_library() -> Any:
    """The package `transformers`; ValueError, saying what to install, where it is missing."""
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise ValueError(
            "models of Hugging Face need transformers, which is not installed; install it with: "
            "python -m pip install transformers"
        ) from None


class HuggingFaceModel(LanguageModel):
    """A causal language model of Transformers, such as `AutoModelForCausalLM` loads.

    Its state grows with the text, as a Transformer's must: the keys and values of every layer. A
    text that is read in parts has the logits of reading it at once, but for rounding.

    Some models change their logits after the output layer (a soft cap, a scale). Of such a model
    the `features` are the logits themselves: right, but without the memory that features save.

    Texts of one batch have one length. Fill shorter ones up on the right and leave the rest of
    their logits out: what follows a token does not change its logits.

    Raises TypeError for what is not a model of Transformers, ValueError where Transformers is
    missing, or the model is not causal or remembers something other than keys and values.
    """

    state_grows = True

    def __init__(self, library: Any) -> None:
        transformers = transformers_library()
        if not isinstance(library, transformers.PreTrainedModel):
            raise TypeError(
                "library must be a model of transformers, such as "
                f"AutoModelForCausalLM.from_pretrained(folder) returns, got {library!r:.99}"
            )
        name = type(library).__name__
        head = library.get_output_embeddings()
        if head is None or library.config.is_encoder_decoder:
            raise ValueError(
                f"the model must predict the next token of a text, and {name} does not; load it "
                "with AutoModelForCausalLM"
            )
        # What earlier releases call past_key_values, later ones call cache.
        declared = inspect.signature(library.forward).parameters
        cache = "cache" if "cache" in declared else "past_key_values"
        with evaluation_mode(library), torch.no_grad():
            known = library.get_input_embeddings().num_embeddings
            ids = torch.arange(min(known, 8), device=library.device)[None]
            try:
                made = library(
                    input_ids=ids, use_cache=True, **{cache: transformers.DynamicCache()}
                )
            except (AttributeError, IndexError, TypeError, ValueError) as error:
                raise ValueError(_no_keys(name)) from error
            state = _state_of(getattr(made, cache, None), name, length=ids.shape[1])
            hidden = library.base_model(input_ids=ids).last_hidden_state
            own = made.logits.float()
            close = torch.isclose(head(hidden).float(), own, rtol=1e-3, atol=1e-4)
        super().__init__(own.shape[-1])
        self.library = library
        """The model of Transformers."""
        self._cache = cache
        settings = library.config.get_text_config()
        # A soft cap may be too weak to show on these tokens, and show after training.
        capped = getattr(settings, "final_logit_softcapping", None) is not None
        self._head_only = bool(close.all()) and not capped
        self._empty = [part.new_zeros(1, *part.shape[1:])[:, :, :0] for part in state]
        self.max_length = getattr(settings, "max_position_embeddings", None)

    def features(
        self, inputs: Int[Tensor, "batch time"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch time features"], State]:
        """The last layer's outputs at the inputs, and the keys and values of all that was read.

        ValueError where that is more than `max_length` tokens.
        """
        cache = transformers_library().DynamicCache()
        if state is not None and state[0].shape[2]:
            pairs = list(zip(state[::2], state[1::2], strict=True))
            for layer, (keys, values) in enumerate(pairs):
                cache.update(keys, values, layer)
        read = 0 if state is None else state[0].shape[2]
        length = read + inputs.shape[1]
        if self.max_length is not None and length > self.max_length:
            raise ValueError(
                f"the model has positions for {self.max_length} tokens, got {length}; read shorter "
                "texts"
            )
        reader = self.library.base_model if self._head_only else self.library
        made = reader(input_ids=inputs, use_cache=True, **{self._cache: cache})
        found = made.last_hidden_state if self._head_only else made.logits
        after = getattr(made, self._cache)
        return found, _state_of(after, type(self.library).__name__, length=length)

    def logits(self, features: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch vocab"]:
        """Logits of the next token from `features`."""
        if not self._head_only:
            return features
        logits: Tensor = self.library.get_output_embeddings()(features)
        return logits

    def initial_state(self, batch_size: int) -> State:
        """Keys and values of no token: shapes (B, heads, 0, size)."""
        return tuple(
            part.to(self.device).expand(batch_size, *part.shape[1:]) for part in self._empty
        )


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer of Transformers as one of ours.

    end: the token that begins a document, by default the tokenizer's end-of-text token; a model
        for chat may end a turn with another. vocabulary_size: the model's, which may have more
        rows than the tokenizer has tokens.

    Text is text: a special token's name in it is encoded as letters, except by `chat`. Raises
    TypeError for what is not a tokenizer of Transformers, ValueError for an unknown `end` or a
    vocabulary smaller than the tokenizer's. It is saved by its `library`, not by us.
    """

    kind: ClassVar[str] = "hugging-face"

    def __init__(
        self, library: Any, *, end: str | None = None, vocabulary_size: int | None = None
    ) -> None:
        base = transformers_library().PreTrainedTokenizerBase
        if not isinstance(library, base):
            raise TypeError(
                "library must be a tokenizer of transformers, such as "
                f"AutoTokenizer.from_pretrained(folder) returns, got {library!r:.99}"
            )
        known = len(library)
        size = known if vocabulary_size is None else vocabulary_size
        if size < known:
            raise ValueError(
                f"vocabulary_size must be at least the tokenizer's {known}, got {size}; give the "
                "tokenizer that the model was trained with"
            )
        end = library.eos_token if end is None else end
        ids = library.get_vocab()
        if end not in ids:
            raise ValueError(f"end must be a token of the tokenizer, got {end!r}")
        self.library = library
        """The tokenizer of Transformers."""
        self.end_id = ids[end]
        names = {place: name for name, place in ids.items()}
        self.tokens = [names.get(place, f"<unused {place}>") for place in range(size)]
        self._known = known

    @classmethod
    def fit(cls, texts: Any) -> HuggingFaceTokenizer:
        """Refused: it is loaded, not fitted."""
        raise ValueError("a tokenizer of Hugging Face is loaded, not fitted; use AutoTokenizer")

    def encode(self, text: str) -> list[int]:
        """Ids of the tokens of the text; none is added, and special tokens are letters."""
        made = self.library(text, add_special_tokens=False, split_special_tokens=True)
        ids: list[int] = made["input_ids"]
        return ids

    def chat(self, *turns: str, prefill: str = "") -> Int[Tensor, " prompt"]:
        """Ids of a conversation, the user's and the model's turns in order, up to where the model
        writes next, in the tokenizer's own chat format; `prefill` begins the model's turn for it.

        ValueError where the tokenizer has no chat format or the last turn is not the user's.
        """
        if len(turns) % 2 == 0:
            raise ValueError(f"turns must end with the user's, so be odd in number: got {turns}")
        if not self.library.chat_template:
            raise ValueError("the tokenizer has no chat format; give a chat model's tokenizer")
        roles = ("user", "assistant")
        said = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
        text = self.library.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
        ids = self.library(text, add_special_tokens=False)["input_ids"]
        return torch.tensor([*ids, *self.encode(prefill)])

    def _parts(self, text: str) -> Sequence[str]:  # type: ignore[override]
        return [text]  # where it may be cut, this tokenizer alone knows

    def _join(self, ids: list[int]) -> str:
        known = [i for i in ids if i < self._known]
        text: str = self.library.decode(
            known, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def to_dict(self) -> dict[str, Any]:
        """Refused: `library.save_pretrained(folder)` saves it."""
        raise ValueError(
            "a tokenizer of Hugging Face is saved by its own library; use "
            "tokenizer.library.save_pretrained(folder)"
        )

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> HuggingFaceTokenizer:
        raise ValueError("load it with transformers.AutoTokenizer")


def _state_of(cache: Any, name: str, *, length: int) -> State:
    """The keys and values of a cache; ValueError where it holds something else."""
    layers = getattr(cache, "layers", None) or []
    found = [getattr(layer, part, None) for layer in layers for part in ("keys", "values")]
    parts = [part for part in found if isinstance(part, Tensor)]
    if (
        not parts
        or len(parts) < len(found)
        or any(part.ndim != 4 or part.shape[2] != length for part in parts)
    ):
        raise ValueError(_no_keys(name))
    return tuple(parts)


def _no_keys(name: str) -> str:
    return (
        f"a model must remember the keys and values of all tokens, and {name} remembers something "
        "else (a recurrent state, a window); models like it are not supported"
    )
