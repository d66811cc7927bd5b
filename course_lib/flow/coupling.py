"""Coupling layers: some entries pass unchanged and decide how the others are transformed."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.flow.masks import require_mask
from course_lib.flow.transform import Transform
from course_lib.inputs import require_kind, require_real
from course_lib.precision import applied_in_type


def bounded(raw: Tensor, bound: float) -> Tensor:
    """Squash a network's output into (−bound, bound), with slope 1 at 0.

    A log-scale made this way cannot overflow, however far out the input lies.

    Args:
        raw: any shape.
        bound: largest absolute value.

    Returns:
        ``bound · tanh(raw / bound)``, same shape.
    """
    # Written as 2σ(2r/b) − 1: on a CPU torch.sigmoid is faster than torch.tanh.
    return (2 * bound * torch.sigmoid(raw * (2 / bound))).sub_(bound)


class Coupling(Transform):
    """What all coupling layers share: split by a mask, transform one part given the other, merge.

    The Jacobian is triangular whatever the network computes, so the network need not be
    invertible. A subclass says how one entry is transformed, in ``_transform`` and
    ``_untransform``, each returning the entries and the logarithms of their derivatives.

    Args:
        mask: boolean, true where an entry passes unchanged; its shape is the event shape.
        conditioner: maps kept entries ``(N, D_kept)`` to parameters
            ``(N, n_parameters, D_transformed)``; see `course_lib.flow.VectorConditioner`.

    Raises:
        TypeError: the mask is not boolean.
        ValueError: the mask keeps every entry, or none.
    """

    n_parameters: int

    def __init__(self, mask: Tensor, conditioner: nn.Module) -> None:
        require_mask(mask)
        require_kind(conditioner, nn.Module, "conditioner")
        super().__init__(mask.shape)
        flat = mask.flatten()
        kept, transformed = flat.nonzero().squeeze(1), (~flat).nonzero().squeeze(1)
        self.register_buffer("kept", kept)
        self.register_buffer("transformed", transformed)
        self.register_buffer("order", torch.cat([kept, transformed]).argsort())
        self.follow_buffers()
        self.conditioner = conditioner

    def follow_buffers(self) -> None:
        """See whether the mask is two blocks: views then do what gathering does otherwise."""
        n_kept, n_transformed = len(self.kept), len(self.transformed)
        self.kept_first = bool(self.kept[0] == 0)
        # A block of n entries begins at 0 or ends with the last one.
        ends = (self.kept[-1] == n_kept - 1) if self.kept_first else (self.kept[0] == n_transformed)
        self.blocks = [n_kept, n_transformed] if ends else None

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._couple(self._transform, x)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self._couple(self._untransform, z)

    def _couple(
        self, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x: Tensor
    ) -> tuple[Tensor, Tensor]:
        kept, changing = self._split(x.flatten(1))
        # Under autocast the network has rounded; the map and its determinant must not.
        parameters = applied_in_type(self.conditioner, kept).to(x.dtype)
        changed, log_slope = change(changing, parameters)
        return self._merge(kept, changed), log_slope.sum(1)

    def _split(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        if self.blocks is None:
            return flat.index_select(1, self.kept), flat.index_select(1, self.transformed)
        if self.kept_first:
            kept, changing = flat.split(self.blocks, 1)
        else:
            changing, kept = flat.split(self.blocks[::-1], 1)
        return kept, changing

    def _merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        if self.blocks is None:
            flat = torch.cat([kept, changed], 1).index_select(1, self.order)
        else:
            flat = torch.cat([kept, changed] if self.kept_first else [changed, kept], 1)
        return flat.unflatten(1, self.event_shape)

    def _transform(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _untransform(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class AdditiveCoupling(Coupling):
    """z = x + t on the transformed entries: volume is preserved, the log-determinant is 0.

    Source: Dinh, Krueger and Bengio (2015), "NICE".

    Args:
        mask: boolean, true where an entry passes unchanged.
        conditioner: gives 1 parameter per transformed entry, the shift t.
    """

    n_parameters = 1

    def _transform(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return x + parameters[:, 0], torch.zeros_like(x)

    def _untransform(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return z - parameters[:, 0], torch.zeros_like(z)


class AffineCoupling(Coupling):
    """z = x · exp(s) + t on the transformed entries, equations ``eq-affine-coupling`` and following.

    The log-determinant is the sum of s. Source: Dinh, Sohl-Dickstein and Bengio (2017), "RealNVP".

    Args:
        mask: boolean, true where an entry passes unchanged.
        conditioner: gives 2 parameters per transformed entry: the shift t and a number that is
            squashed to the log-scale s.
        bound: largest absolute value of s.

    Raises:
        ValueError: `bound` is not positive.
    """

    n_parameters = 2

    def __init__(self, mask: Tensor, conditioner: nn.Module, bound: float = 2.0) -> None:
        super().__init__(mask, conditioner)
        require_bound(bound)
        self.bound = bound

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {**super().settings(), "bound": self.bound}

    def _transform(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = parameters.unbind(1)
        log_scale = bounded(raw, self.bound)
        return torch.addcmul(shift, x, log_scale.exp()), log_scale

    def _untransform(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = parameters.unbind(1)
        log_scale = -bounded(raw, self.bound)
        return (z - shift) * log_scale.exp(), log_scale


def require_bound(bound: float) -> None:
    """Require a bound of log-scales whose exponential is a number; raise `ValueError` otherwise."""
    # exp(88) is nearly the largest number of float32; beyond it, scales would be infinite.
    expected = "a positive number below 88, such as 2.0,"
    require_real(bound, "bound", expected, above=0, below=88)
