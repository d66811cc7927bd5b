"""What a state dict must hold beside weights: the settings that give the weights their meaning.

Equal shapes do not make equal models. The same numbers under another bound of the log-scales, another
dilation or another set of grey levels are another function, and PyTorch loads them without a word.
"""

import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class SavedSettings(nn.Module):
    """A module whose state dict also holds its settings, and that refuses those of another one.

    A subclass names its settings in `settings`. They are kept in the state dict as one more tensor,
    a text in bytes, so that all entries can be cloned, compared and stored alike. What was drawn at
    random, such as an order, is a buffer and is loaded; what a subclass derives from its buffers, it
    derives in `follow_buffers`.
    """

    def settings(self) -> dict[str, object]:
        """Name what the weights' meaning depends on: numbers, texts, and sequences of them."""
        return {}

    def follow_buffers(self) -> None:
        """Derive anew what follows from the buffers, which a state dict has just changed."""

    def get_extra_state(self) -> Tensor:
        """Return the settings as PyTorch puts them into the state dict, uint8, shape ``(bytes,)``."""
        # A NumPy number has its Python number as its item.
        text = json.dumps(self.settings(), default=lambda value: value.item())
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Compare saved settings with the module's own, as PyTorch does when it loads a state dict.

        Args:
            state: what `get_extra_state` returned.

        Raises:
            ValueError: a setting differs; the message names it, and both values.
        """
        saved, own = _read(state), _read(self.get_extra_state())
        names = [name for name in {**own, **saved} if saved.get(name) != own.get(name)]
        if names:
            differences = "; ".join(
                f"{name} is {saved.get(name)!r} there and {own.get(name)!r} here" for name in names
            )
            raise ValueError(
                f"the state is that of another {type(self).__name__}: {differences}. Equal settings are "
                f"expected, because the same weights mean something else under others. Build the model "
                f"with those of the saved one."
            )

    def _load_from_state_dict(self, state_dict: Mapping[str, object], *arguments: object) -> None:
        before = {name: buffer.clone() for name, buffer in self._persistent_buffers()}
        super()._load_from_state_dict(state_dict, *arguments)
        if not all(
            torch.equal(before[name], buffer) for name, buffer in self._persistent_buffers()
        ):
            self.follow_buffers()

    def _persistent_buffers(self) -> list[tuple[str, Tensor]]:
        transient = self._non_persistent_buffers_set
        return [pair for pair in self.named_buffers(recurse=False) if pair[0] not in transient]


def _read(state: Tensor) -> dict[str, object]:
    """The settings in what `get_extra_state` returned; averaging may have left it in another type."""
    try:
        return json.loads(bytes(state.round().to("cpu", torch.uint8).tolist()))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"the saved settings cannot be read ({type(error).__name__}); the state dict of a module of "
            f"the same class is expected. Leave entries that end in '_extra_state' as they are."
        ) from error
