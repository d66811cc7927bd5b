r"""What a network can predict of a noised example, and how each follows from the others.

From :math:`z = \alpha x + \sigma\varepsilon` the clean example x, the noise ε, the velocity
:math:`v = \alpha\varepsilon - \sigma x` and the score :math:`s = -\varepsilon/\sigma` are one and the same
prediction at given z, α and σ (``eq-parametrizations``): a network may predict any of them, and the
others are arithmetic. What differs is the size of the error that its own error makes in the others.
"""

from torch import Tensor

from course_lib.inputs import where_values_can_be_read
from course_lib.schedules import per_example, require_alike, require_noise, require_single

PREDICTIONS = ("clean", "noise", "velocity", "score")


def to_clean(kind: str, prediction: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The clean example that a prediction stands for, equation ``eq-parametrizations``.

    Args:
        kind: what is predicted: ``"clean"``, ``"noise"``, ``"velocity"`` or ``"score"``.
        prediction: its value, shape ``(N, *event_shape)``.
        z: noised examples, in the same shape.
        alpha: factor of the signal, shape ``()`` or ``(N,)``.
        sigma: standard deviation of the noise, shape ``()`` or ``(N,)``.

    Returns:
        x̂, in the shape of `z`.

    Raises:
        ValueError: there is no such kind of prediction, or no signal (α = 0) of which noise or score tell.
    """
    require_prediction(kind)
    require_alike(z=z, prediction=prediction)
    alpha, sigma = _factors(alpha, sigma, z)
    if kind == "clean":
        return prediction
    with where_values_can_be_read():
        if kind in ("noise", "score") and not (alpha > 0).all():
            raise ValueError(
                f"alpha has a least value of {alpha.min().item():.4g}; a signal above 0 is expected, since "
                f"without one the {kind} tells nothing of the clean example."
            )
    if kind == "noise":
        return (z - sigma * prediction) / alpha
    if kind == "score":
        return (z + sigma.square() * prediction) / alpha
    return (alpha * z - sigma * prediction) / (alpha.square() + sigma.square())


def from_clean(kind: str, clean: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a prediction of some kind is, if the clean example is `clean`: the inverse of `to_clean`.

    Args:
        kind: what is asked for: ``"clean"``, ``"noise"``, ``"velocity"`` or ``"score"``.
        clean: x̂, shape ``(N, *event_shape)``.
        z: noised examples, in the same shape.
        alpha: factor of the signal, shape ``()`` or ``(N,)``.
        sigma: standard deviation of the noise, shape ``()`` or ``(N,)``.

    Returns:
        The prediction, in the shape of `z`.

    Raises:
        ValueError: there is no such kind of prediction, or no noise (σ = 0) that could be computed.
    """
    require_prediction(kind)
    require_alike(z=z, clean=clean)
    alpha, sigma = _factors(alpha, sigma, z)
    if kind == "clean":
        return clean
    require_noise(sigma, above=True)
    noise = (z - alpha * clean) / sigma
    if kind == "noise":
        return noise
    return -noise / sigma if kind == "score" else alpha * noise - sigma * clean


def clip_clean(clean: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """A clean example cut to [−1, 1], and the noise that belongs to it.

    The noise is computed anew from the clipped example. With the old noise the two would belong to
    another z, and a sampler would leave the path that the network was trained on.

    Returns:
        x̂ and ε̂, each in the shape of `z`.
    """
    require_alike(z=z, clean=clean)
    clean = clean.clamp(-1, 1)
    return clean, from_clean("noise", clean, z, alpha, sigma)


def require_prediction(kind: str, known: tuple[str, ...] = PREDICTIONS) -> str:
    """Require a known kind of prediction; raise `ValueError` otherwise."""
    if not isinstance(kind, str) or kind not in known:
        raise ValueError(
            f"kind, or prediction, is {kind!r}; one of {', '.join(map(repr, known))} is expected."
        )
    return kind


def _factors(alpha: Tensor, sigma: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """α and σ with the axes of the examples."""
    require_single(alpha, "alpha")
    require_single(sigma, "sigma")
    return per_example(alpha, z, "alpha"), per_example(sigma, z, "sigma")
