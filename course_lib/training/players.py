"""What is minimized, and which parameters minimize it: one loss, or several players of a game."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from course_lib.inputs import require_positive_integer, require_real
from course_lib.training.batches import Batch
from course_lib.training.optimizers import OptimizerFactory, require_factory

LossTerms = dict[str, Tensor]
Loss = Callable[[nn.Module, Batch, Tensor], LossTerms | Tensor]


@dataclass(frozen=True)
class Player:
    """One of several players of a game, each with a loss and parameters of its own.

    Attributes:
        name: what to call it; its terms are recorded as ``"name/term"``.
        loss: what it minimizes, called like the loss of `fit`.
        parameters: picks its parameters out of the model; no two players share one.
        updates: how often it is updated in every step, each time on a fresh batch.
        learning_rate: its step size; that of `fit` if none is given.
        optimizer: called with its parameters and ``lr=``; that of `fit` if none is given.
    """

    name: str
    loss: Loss
    parameters: Callable[[nn.Module], Iterable[nn.Parameter]]
    updates: int = 1
    learning_rate: float | None = None
    optimizer: OptimizerFactory | None = None

    def called(self, thing: str) -> str:
        """What to call the player's loss or optimizer: one that is alone is not named."""
        return f"{thing} of the player {self.name!r}" if self.name else thing

    def record_name(self, term: str) -> str:
        """Name of a term in the history: a player without a name is alone and needs no prefix."""
        return f"{self.name}/{term}" if self.name else term


def as_players(model: nn.Module, loss: Loss | Sequence[Player]) -> tuple[Player, ...]:
    """One loss is a game of one nameless player; several must not share names or parameters."""
    if isinstance(loss, type) or not isinstance(loss, Sequence | Callable):
        raise TypeError(
            f"loss is {loss!r}; a function of model, batch and progress is expected, or a sequence "
            f"of players. A class of losses is called first, as in NegativeELBO()."
        )
    if not isinstance(loss, Sequence):
        return (Player("", loss, nn.Module.parameters),)
    owners: dict[nn.Parameter, str] = {}
    players = []
    for player in loss:
        if not isinstance(player, Player):
            raise TypeError(
                f"loss holds {player!r}; a sequence of players is expected. Pass a single loss as it "
                f"is, and give each of several losses its parameters, as in "
                f"Player('generator', loss, lambda model: model.generator.parameters())."
            )
        player = _checked(player)
        players.append(player)
        for parameter in trainable(player, model):
            if owners.setdefault(parameter, player.name) != player.name:
                raise ValueError(
                    f"the players {owners[parameter]!r} and {player.name!r} share a parameter of shape "
                    f"{tuple(parameter.shape)}; each parameter is updated by one player. Let each "
                    f"player's `parameters` pick its own network's only."
                )
    names = [player.name for player in players]
    if not names or len(set(names)) < len(names) or "" in names:
        raise ValueError(f"players are named {names}; at least one, each with a name of its own.")
    return tuple(players)


def _checked(player: Player) -> Player:
    """The player, with plain numbers, which a checkpoint can hold."""
    rate, name = player.learning_rate, player.called("learning_rate")
    if rate is not None:
        rate = require_real(rate, name, "a positive number, or None for that of fit,", above=0)
    require_factory(player.optimizer, player.called("optimizer"))
    updates = require_positive_integer(player.updates, player.called("updates"))
    return replace(player, updates=updates, learning_rate=rate)


def trainable(player: Player, model: nn.Module) -> list[nn.Parameter]:
    """List the player's parameters but for the frozen ones."""
    found = [p for p in player.parameters(model) if p.requires_grad]
    if not found:
        who = f"the player {player.name!r}" if player.name else "the model"
        raise ValueError(
            f"{who} has no parameter that is trained; at least one is expected. Call "
            f"requires_grad_(True) on what was frozen."
        )
    return found


class LossModule(nn.Module):
    """The losses as one module, so that one forward pass of it is what Fabric wraps."""

    def __init__(self, model: nn.Module, players: Sequence[Player]) -> None:
        super().__init__()
        self.model = model
        self.losses = [player.loss for player in players]

    def forward(self, batch: Batch, progress: Tensor, turn: int = 0) -> LossTerms:
        """Return the terms of the loss of the player whose turn it is, ``"loss"`` among them."""
        terms = self.losses[turn](self.model, batch, progress)
        terms = terms if isinstance(terms, dict) else {"loss": terms}
        for name, value in {"loss": None, **terms}.items():
            if not isinstance(value, Tensor) or value.dim():
                given = (
                    f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
                )
                raise TypeError(
                    f"the loss returned a term {name!r} that is {given}; a tensor of shape () is "
                    f"expected. Take the mean over the batch, and name what is minimized 'loss'."
                )
        return terms
