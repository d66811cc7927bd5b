"""Independent pixels, each with its own distribution over the grey levels."""

import torch
from torch import Tensor, nn


class Dummy(nn.Module):
    """Independent pixels.

    Args:
        event_shape: shape of an image.
        levels: number of grey levels.
    """

    def __init__(self, event_shape: tuple[int, ...], levels: int) -> None:
        super().__init__()
        self.event_shape = event_shape
        self.logits = nn.Parameter(torch.zeros(*event_shape, levels))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) in nats, shape ``(N,)``."""
        return torch.distributions.Categorical(logits=self.logits).log_prob(x).flatten(1).sum(1)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw n images, shape ``(n, *event_shape)``."""
        p = self.logits.softmax(-1)
        drawn = torch.multinomial(p.flatten(0, -2), n, replacement=True, generator=generator)
        return drawn.T.reshape(n, *self.event_shape)
