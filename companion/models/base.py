"""The interface of all language models, so that decoding, scoring and tuning work with each.

`LanguageModel` says what a model promises; a model of your own that keeps these promises can be
trained, tuned, scored and generated from by all of the package.

Shape legend: B batch (texts side by side), T time, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from companion.core.settings import check_whole

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped

#: A tensor, or a tuple of tensors: what a model remembers of a text (see `LanguageModel`).
State = Any


class LanguageModel(nn.Module, ABC):
    """Tokens and a state in, logits of the next tokens and the new state out.

    A subclass calls `super().__init__(vocabulary_size)` and defines `features`, `logits` and
    `initial_state`; `forward` combines them, and the package uses nothing else of it:

        logits, state = model(first_part)
        more_logits, state = model(second_part, state)

    - `inputs` are token ids in [0, V) of shape (B, T); `logits` has the shape (B, T, V), and
      `logits[:, t]` is about the token after `inputs[:, t]`.
    - A state is a tensor or a tuple of tensors, with one row for each text along `batch_axis`; the
      model chooses the shapes and the meaning, and nobody else looks inside. `None` as an argument
      is `initial_state(B)`.
    - All that a model remembers of a text is in the state it returns: the module stores none, and
      the logits of a text that is read in parts equal those of reading it at once.
    - A state never shares memory with the inputs, which the caller may overwrite.
    - `select_rows(state, rows)` is the state of the texts `rows`, in that order, repeated or left
      out: from it each goes on as it would alone.
    - A state may grow with the text; then `state_grows` is True.
    - A model that can read only a limited number of tokens of a text has it as `max_length`.
    """

    batch_axis: ClassVar[int] = 0
    """The axis of a state's tensors along which the texts of the batch lie."""
    state_grows: ClassVar[bool] = False
    """Whether a state grows with the text, as a Transformer's does; then no state is carried
    through a long text, and states of texts of different lengths cannot be joined."""

    max_length: int | None = None
    """Most tokens of a text that the model can read; None means any number."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        """Number of token kinds V."""

    @abstractmethod
    def features(
        self, inputs: Int[Tensor, "batch time"], state: State | None = None
    ) -> tuple[Shaped[Tensor, "batch time features"], State]:
        """The model's features at each input, and the state after the last input.

        `logits` needs nothing else. Features are far smaller than the logits of a large vocabulary:
        when memory is short, compute the logits of a few positions at a time.
        """

    @abstractmethod
    def logits(self, features: Shaped[Tensor, "*batch features"]) -> Float[Tensor, "*batch vocab"]:
        """Logits of the next token from `features`: log-probabilities up to a constant."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state of `batch_size` texts before their first token, on the model's device."""

    def forward(
        self, inputs: Int[Tensor, "batch time"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch time vocab"], State]:
        """Logits of the token after each input, and the state after the last input.

        There is no softmax: losses take logits. `state` None starts from the initial state.
        """
        features, state = self.features(inputs, state)
        return self.logits(features), state

    def select_rows(self, state: State, rows: Int[Tensor, " rows"]) -> State:
        """The state of the texts `rows` of the batch, in that order.

        Rows may be repeated (beam search continues one text in two ways) or dropped (texts that
        have ended).
        """
        return _map(lambda part: part.index_select(self.batch_axis, rows.to(part.device)), state)

    def restart_rows(self, state: State, rows: Bool[Tensor, " batch"]) -> State:
        """`state` with the texts that `rows` marks at their initial state again.

        Not for a model whose state grows with the text.
        """
        fresh = self.initial_state(len(rows))
        shape = [1] * self.batch_axis + [-1]

        def mixed(part: Tensor, initial: Tensor) -> Tensor:
            marked = rows.view(shape + [1] * (part.ndim - len(shape)))
            return torch.where(marked, initial, part)

        parts = tuple(map(mixed, state_parts(state), state_parts(fresh)))
        return parts if isinstance(state, tuple) else parts[0]

    def join_rows(self, states: Sequence[State]) -> State:
        """The concatenation of the states of several batches into the state of one batch.

        Raises ValueError when states grow with the text, as a Transformer's do, and the texts
        differ in length.
        """
        columns = list(zip(*map(state_parts, states), strict=True))
        for parts in columns:
            if len({part.select(self.batch_axis, 0).shape for part in parts}) > 1:
                raise ValueError("states of texts of different lengths cannot be joined")
        joined = tuple(torch.cat(parts, dim=self.batch_axis) for parts in columns)
        return joined if isinstance(states[0], tuple) else joined[0]

    def require_tokens(self, ids: Tensor, name: str, *, ndim: int, on_device: bool = False) -> None:
        """Raise TypeError or ValueError unless `ids`, the argument `name`, holds one token or more:
        torch.int64 in [0, V), of shape (time,) with `ndim` 1 or (batch, time) with `ndim` 2; with
        `on_device`, on the model's device."""
        if not isinstance(ids, Tensor):
            raise TypeError(
                f"{name} must be a tensor of token ids, got {type(ids).__name__}; make one with "
                "torch.tensor"
            )
        if ids.ndim != ndim:
            shape, mend = (
                ("(time,), one text", f"give one row, {name}[0]")
                if ndim == 1
                else ("(batch, time), one text a row", f"a single text is {name}.unsqueeze(0)")
            )
            raise ValueError(f"{name} must have shape {shape}, got {tuple(ids.shape)}; {mend}")
        if ids.dtype != torch.int64:
            raise TypeError(
                f"{name} must hold token ids as torch.int64, got {ids.dtype}; convert them with "
                f"{name}.long()"
            )
        if not ids.numel():
            raise ValueError(
                f"{name} needs at least one token, got shape {tuple(ids.shape)}; a text begins "
                "with the tokenizer's end_id"
            )
        if on_device and ids.device != self.device:
            raise ValueError(
                f"{name} must be on the model's device, {self.device}, got {ids.device}; move it "
                f"with {name}.to(model.device)"
            )
        low, high = (int(end) for end in torch.aminmax(ids))
        if low < 0 or high >= self.vocabulary_size:
            raise ValueError(
                f"{name} must hold tokens of the model, in [0, {self.vocabulary_size}), got "
                f"{low if low < 0 else high}; encode the text with the tokenizer that the model "
                "was trained with"
            )

    def require_token(self, token: int, name: str) -> None:
        """Raise TypeError or ValueError unless `token`, the argument `name`, is one of the model's,
        a whole number in [0, V)."""
        check_whole(**{name: token})
        if not 0 <= token < self.vocabulary_size:
            raise ValueError(f"{name} must be a token in [0, {self.vocabulary_size}), got {token}")

    def require_evaluation_mode(self) -> None:
        """Raise ValueError in training mode, where dropout would blur what the model has learnt."""
        if self.training:
            raise ValueError(
                "the model is in training mode, so dropout is on; call model.eval() first"
            )

    @property
    def device(self) -> torch.device:
        """The device of the parameters; the CPU for a model without parameters."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    @property
    def num_parameters(self) -> int:
        """Number of trainable parameters; a tied matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the `with` block; afterwards, also after an error, the mode before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def detach(state: State) -> State:
    """The same state without its history: gradients do not flow back through any of its tensors."""
    return _map(Tensor.detach, state)


def largest_difference(one: State, other: State) -> float:
    """The largest absolute difference between two states of the same shape; 0 for empty states,
    such as a unigram model's."""
    parts = zip(state_parts(one), state_parts(other), strict=True)
    return max((float((a - b).abs().max()) for a, b in parts if a.numel()), default=0.0)


def state_parts(state: State) -> tuple[Tensor, ...]:
    """The tensors of a state, in order."""
    return state if isinstance(state, tuple) else (state,)


def _map(function: Callable[[Tensor], Tensor], state: State) -> State:
    if isinstance(state, tuple):
        return tuple(function(part) for part in state)
    return function(state)
