"""The settings of every recorded run: one recipe for each data set, model and budget.

A budget is a name for the means a recipe is made for: ``60s`` and ``300s`` of one CPU core for the
digits; for MNIST ``cpu``, at most 40 minutes of processor time, that is 20 minutes of two cores,
and ``gpu``; and ``source`` for a recipe that is taken from elsewhere as it stands. What follows a hyphen
tells a variant of the model or of the data, such as ``cpu-256`` for 256 grey levels.
"""

from course_lib.autoregressive.family import AnyOrderRecipe, AutoregressiveRecipe
from course_lib.diffusion.family import DiffusionRecipe
from course_lib.family import Recipe
from course_lib.flow.family import FlowRecipe
from course_lib.flow_matching.family import FlowMatchingRecipe
from course_lib.vae.family import VAERecipe


def _digits(steps: int, learning_rate: float, **arguments: object) -> Recipe:
    """An autoregressive model of the digits, on one core of about 60 GFLOP/s."""
    return AutoregressiveRecipe(steps, 32, learning_rate, arguments, ema=0.99, evaluations=20)


def _digits_flow(steps: int, learning_rate: float = 1e-3, **arguments: object) -> Recipe:
    return FlowRecipe(steps, 128, learning_rate, {"logit_margin": 0.05, **arguments}, ema=0.998)


def _diffusion(steps: int, learning_rate: float, ema: float, **arguments: object) -> Recipe:
    """A diffusion model of the digits, by a convolutional network."""
    return DiffusionRecipe(steps, 32, learning_rate, arguments, ema=ema, evaluations=10)


def _flow_matching(steps: int, learning_rate: float, ema: float, **arguments: object) -> Recipe:
    """A flow of the digits by flow matching, whose network tells the grey levels' probabilities."""
    arguments["prediction"] = "levels"
    return FlowMatchingRecipe(steps, 32, learning_rate, arguments, ema=ema, evaluations=10)


def _binary(steps: int, batch_size: int, learning_rate: float, **arguments: object) -> Recipe:
    """An autoregressive model of binarized MNIST at its paper's size, on a GPU."""
    return AutoregressiveRecipe(
        steps, batch_size, learning_rate, arguments, binary=True, ema=0.9995
    )


def _cpu(
    steps: int, batch_size: int, learning_rate: float, *, binary: bool = True, **arguments: object
) -> Recipe:
    """A small autoregressive model of MNIST, on a CPU with instructions for bfloat16."""
    return AutoregressiveRecipe(
        steps,
        batch_size,
        learning_rate,
        arguments,
        binary=binary,
        ema=0.998,
        precision="bf16-mixed",
        channels_last=True,
        validation_examples=500,
    )


def _cpu_flow(
    steps: int, learning_rate: float, /, *, variational: bool = False, **arguments: object
) -> Recipe:
    """A small flow of MNIST's grey levels, on a CPU with instructions for bfloat16."""
    return FlowRecipe(
        steps,
        32,
        learning_rate,
        {"logit_margin": 1e-6, **arguments},
        ema=0.999,
        variational_dequantization=variational,
        dequantization_samples=10,
        precision="bf16-mixed",
        channels_last=True,
        validation_examples=500,
    )


def _vae(
    steps: int, batch_size: int, latent_dim: int, hidden: tuple[int, ...], **settings: object
) -> Recipe:
    """A VAE of binarized MNIST."""
    arguments = {"latent_dim": latent_dim, "hidden": hidden}
    return VAERecipe(steps, batch_size, 1e-3, arguments, binary=True, **settings)


def _source_vae(latent_dim: int) -> Recipe:
    """784–500–d: rectifiers in the encoder, tanh in the decoder."""
    arguments = {"latent_dim": latent_dim, "hidden": (500,), "decoder_activation": "tanh"}
    return VAERecipe(
        40_000, 100, 1e-3, arguments, binary=True, precision="bf16-mixed", stages=(0.0, 0.5)
    )


RECIPES: dict[tuple[str, str, str], Recipe] = {
    ("digits", "GatedPixelCNN", "60s"): _digits(1700, 4e-3, n_layers=4, dropout=0.2),
    ("digits", "RowLSTM", "60s"): _digits(2000, 5e-3, n_layers=2, dropout=0.1),
    ("digits", "DiagonalBiLSTM", "60s"): _digits(1000, 6e-3, n_layers=2, dropout=0.1),
    ("digits", "PixelCNN", "60s"): _digits(1700, 4e-3, n_layers=5, dropout=0.1),
    ("digits", "MADE", "60s"): _digits(3000, 1e-3, hidden=(500,), dropout=0.3),
    ("digits", "NADE", "60s"): _digits(1200, 1e-3, hidden=256),
    ("digits", "FVSBN", "60s"): _digits(2000, 2e-3),
    ("digits", "GatedPixelCNN", "300s"): _digits(6000, 4e-3, n_layers=5, dropout=0.25),
    ("digits", "RowLSTM", "300s"): _digits(6000, 5e-3, n_layers=3, dropout=0.15),
    ("digits", "DiagonalBiLSTM", "300s"): _digits(5000, 6e-3, n_layers=2, dropout=0.2),
    ("digits", "MaskedDiffusion", "60s"): AnyOrderRecipe(
        2600,
        32,
        4e-3,
        {"channels": 32, "n_blocks": 3, "dropout": 0.1},
        ema=0.995,
        evaluations=10,
    ),
    ("digits", "Transformer", "60s"): _digits(1200, 6e-3, kernel_size=7, dropout=0.1),
    ("digits", "Transformer", "300s"): _digits(3800, 4e-3, n_layers=3, kernel_size=7, dropout=0.25),
    ("digits", "NICE", "60s"): _digits_flow(2500, layers=6, hidden=(256, 256), dropout=0.2),
    ("digits", "RealNVP", "60s"): _digits_flow(2800, dropout=0.2),
    ("digits", "MultiScaleRealNVP", "60s"): _digits_flow(1000, 2e-3, dropout=0.1),
    ("digits", "Glow", "60s"): _digits_flow(1200, 2e-3, width=32, dropout=0.1),
    ("digits", "MAF", "60s"): _digits_flow(2500, 2e-3, dropout=0.2),
    ("digits", "Diffusion", "60s"): _diffusion(
        1800, 4e-3, 0.995, channels=32, n_blocks=3, dropout=0.1
    ),
    ("digits", "Diffusion", "300s"): _diffusion(
        3000, 3e-3, 0.998, channels=48, n_blocks=4, dropout=0.2
    ),
    ("digits", "VelocityFlow", "60s"): _flow_matching(
        2000, 4e-3, 0.995, channels=32, n_blocks=3, dropout=0.1
    ),
    ("digits", "VelocityFlow", "300s"): _flow_matching(
        3500, 3e-3, 0.998, channels=48, n_blocks=4, dropout=0.2
    ),
    ("mnist", "VAE", "cpu"): _vae(
        90_000, 128, 40, (500, 500), ema=0.999, warm_up=0.3, precision="bf16-mixed"
    ),
    ("mnist", "VAE", "cpu-iwae50"): _vae(
        92_000,
        32,
        50,
        (400, 400),
        ema=0.999,
        iwae_samples=50,
        precision="bf16-mixed",
        validation_examples=2000,
    ),
    # The recipe of the notes that this course grew from: samples before, during and after training, and
    # the plane of the same model with two latent dimensions.
    ("mnist", "VAE", "source"): _source_vae(20),
    ("mnist", "VAE", "source-2d"): _source_vae(2),
    ("mnist", "GatedPixelCNN", "cpu"): _cpu(4300, 64, 3e-3, channels=32, n_layers=6),
    ("mnist", "MADE", "cpu"): AutoregressiveRecipe(
        24_000,
        128,
        1e-3,
        {"hidden": (8000,)},
        binary=True,
        ema=0.999,
        precision="bf16-mixed",
    ),
    ("mnist", "PixelCNN", "cpu"): _cpu(18_000, 32, 3e-3, channels=32, n_layers=8),
    ("mnist", "RowLSTM", "cpu"): _cpu(9000, 16, 4e-3, channels=48, n_layers=2),
    ("mnist", "GatedPixelCNN", "cpu-256"): _cpu(
        5600, 16, 3e-3, binary=False, channels=48, n_layers=6
    ),
    ("mnist", "DiagonalBiLSTM", "cpu"): _cpu(5300, 16, 5e-3, channels=32, n_layers=2),
    # In float32: of its many small products bfloat16 makes none quicker on a CPU.
    ("mnist", "Transformer", "cpu"): AutoregressiveRecipe(
        4200,
        16,
        3e-3,
        {"kernel_size": 7},
        binary=True,
        ema=0.998,
        evaluations=10,
        validation_examples=300,
    ),
    ("mnist", "NADE", "cpu"): AutoregressiveRecipe(
        40_000,
        64,
        4e-3,
        {"hidden": 500},
        binary=True,
        ema=0.999,
        validation_examples=2000,
    ),
    ("mnist", "MultiScaleRealNVP", "cpu"): _cpu_flow(31_000, 1.5e-3, couplings=4, width=32),
    ("mnist", "MultiScaleRealNVP", "cpu-variational"): _cpu_flow(
        31_000, 1.5e-3, variational=True, couplings=4, width=32
    ),
    ("mnist", "Glow", "cpu"): _cpu_flow(38_000, 2e-3, steps=6, width=48),
    ("mnist", "Diffusion", "cpu"): DiffusionRecipe(
        4000,
        32,
        3e-3,
        {"channels": 32, "n_blocks": 3},
        ema=0.998,
        precision="bf16-mixed",
        channels_last=True,
        validation_examples=300,
        evaluations=5,
        bound_samples=3,
    ),
    ("mnist", "VelocityFlow", "cpu"): FlowMatchingRecipe(
        5000,
        16,
        2e-3,
        {"channels": 32, "n_blocks": 3, "prediction": "levels"},
        ema=0.998,
        precision="bf16-mixed",
        validation_examples=200,
        evaluations=5,
        solver_steps=20,
        dequantization_samples=1,
        measured_every=25,  # 400 images take about 12 of the 40 minutes
    ),
    # Sizes and lengths for a GPU, after the papers; see the table for which of them have been run.
    ("mnist", "VAE", "gpu"): _vae(500_000, 128, 50, (500, 500), ema=0.9999),
    ("mnist", "VAE", "gpu-iwae50"): _vae(500_000, 128, 50, (200, 200), ema=0.9999, iwae_samples=50),
    ("mnist", "NADE", "gpu"): _binary(100_000, 128, 1e-3, hidden=500),
    ("mnist", "MADE", "gpu"): _binary(100_000, 128, 1e-3, hidden=(8000, 8000), n_orderings=32),
    ("mnist", "PixelCNN", "gpu"): _binary(60_000, 64, 1e-3, channels=64, n_layers=12),
    ("mnist", "GatedPixelCNN", "gpu"): _binary(
        120_000, 64, 1e-3, channels=64, n_layers=10, dropout=0.1
    ),
    ("mnist", "RowLSTM", "gpu"): _binary(60_000, 64, 1e-3, channels=64, n_layers=7),
    ("mnist", "DiagonalBiLSTM", "gpu"): _binary(60_000, 64, 1e-3, channels=16, n_layers=7),
    ("mnist", "Transformer", "gpu"): _binary(
        120_000, 64, 1e-3, width=192, heads=6, n_layers=8, kernel_size=7, dropout=0.1
    ),
    ("mnist", "GatedPixelCNN", "gpu-256"): AutoregressiveRecipe(
        120_000, 64, 1e-3, {"channels": 128, "n_layers": 12}, ema=0.9995
    ),
    ("mnist", "MultiScaleRealNVP", "gpu"): FlowRecipe(
        120_000, 128, 1e-3, {"couplings": 4, "width": 64, "logit_margin": 1e-6}, ema=0.9995
    ),
    ("mnist", "MultiScaleRealNVP", "gpu-variational"): FlowRecipe(
        120_000,
        128,
        1e-3,
        {"couplings": 4, "width": 64, "logit_margin": 1e-6},
        ema=0.9995,
        variational_dequantization=True,
    ),
    ("mnist", "Diffusion", "gpu"): DiffusionRecipe(
        120_000, 128, 1e-3, {"channels": 96, "n_blocks": 6, "dropout": 0.1}, ema=0.9995
    ),
    ("mnist", "VelocityFlow", "gpu"): FlowMatchingRecipe(
        120_000,
        128,
        1e-3,
        {"channels": 96, "n_blocks": 6, "dropout": 0.1, "prediction": "levels"},
        ema=0.9995,
    ),
    ("mnist", "Glow", "gpu"): FlowRecipe(
        120_000, 128, 1e-3, {"width": 128, "logit_margin": 1e-6}, ema=0.9995
    ),
}


def find_recipe(data: str, model: str, budget: str | None = None) -> tuple[str, Recipe]:
    """The recipe for a model on a data set.

    Args:
        data: ``"digits"`` or ``"mnist"``.
        model: name of the model, as in its package.
        budget: which of its recipes; the first if None.

    Returns:
        The name of the budget, and the recipe.

    Raises:
        ValueError: there is none; the message lists those of the model, or else of the data set.
    """
    for (its_data, its_model, its_budget), recipe in RECIPES.items():
        if (its_data, its_model) == (data, model) and budget in (None, its_budget):
            return its_budget, recipe
    # Those of the model on other data, or written in other letters, if there are any.
    own = [key for key in RECIPES if key[1].lower() == model.lower()]
    listed = own or [key for key in RECIPES if key[0] == data]
    known = sorted(f"{m} on {d} ({b})" for d, m, b in listed)
    raise ValueError(
        f"there is no recipe for {model!r} on {data!r}"
        f"{f' with the budget {budget!r}' if budget else ''}; recorded are: {', '.join(known)}."
    )
