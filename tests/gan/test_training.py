"""Players of `fit`, and the adversarial game among them."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from course_lib.gan import (
    GAN,
    HINGE,
    MINIMAX,
    NON_SATURATING,
    RELATIVISTIC,
    WASSERSTEIN,
    ConvDiscriminator,
    ConvGenerator,
    Discriminator,
    Generator,
    gradient_penalty,
    players,
    r1_penalty,
    roth_penalty,
    weight_clipping,
)
from course_lib.training import Player, TrainingError, fit, linear_decay

X = torch.rand(96, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def small(seed=0, **settings):
    torch.manual_seed(seed)
    return GAN(
        Generator((1, 4, 4), 3, (8,), **settings), Discriminator((1, 4, 4), (8,), **settings)
    )


def run(model, game, data=X, **settings):
    defaults = {"steps": 12, "batch_size": 16, "learning_rate": 1e-2, "progress": False}
    return fit(model, game, data, **{**defaults, **settings})


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_discriminator_moves_only_in_its_own_turn_and_the_generator_in_its():
    for index, (moves, rests) in enumerate(
        [("discriminator", "generator"), ("generator", "discriminator")]
    ):
        model = small()
        before = {name: weights(getattr(model, name)) for name in (moves, rests)}
        run(model, players()[index : index + 1])
        assert torch.equal(weights(getattr(model, rests)), before[rests])
        assert not torch.equal(weights(getattr(model, moves)), before[moves])


def test_the_discriminators_step_sends_nothing_to_the_generator():
    """Generated examples are detached: for the discriminator, for the penalty, and in the gradients."""
    seen = []

    def penalty(discriminator, real, fake):
        seen.append(fake.requires_grad)
        return torch.zeros(())

    model = small()
    run(model, players(penalty=penalty)[:1])
    assert not any(seen)
    assert all(p.grad is None for p in model.generator.parameters())


def test_one_step_is_two_steps_of_plain_torch():
    """k = 2 on plain gradient descent, written out; with detach and fresh batches."""
    model, twin = small(), small()
    batches = []
    game = players(discriminator_updates=2, optimizer=torch.optim.SGD)

    def remember(batch, generator):
        batches.append(batch)
        return batch

    run(model, game, steps=1, transform=remember, learning_rate=0.1)
    assert len(batches) == 3
    assert not torch.equal(batches[0], batches[1])

    torch.manual_seed(0)  # the seed of `fit`
    noise = [torch.randn(16, 3) for _ in range(3)]
    d, g = twin.discriminator, twin.generator
    for z, real in zip(noise[:2], batches[:2], strict=True):
        loss = -(torch.sigmoid(d(real)).log().mean() + (1 - torch.sigmoid(d(g(z)))).log().mean())
        for p, gradient in zip(
            d.parameters(), torch.autograd.grad(loss, list(d.parameters())), strict=True
        ):
            p.data -= 0.1 * gradient
    loss = -torch.sigmoid(d(g(noise[2]))).log().mean()
    for p, gradient in zip(
        g.parameters(), torch.autograd.grad(loss, list(g.parameters())), strict=True
    ):
        p.data -= 0.1 * gradient
    torch.testing.assert_close(weights(model), weights(twin))


def test_a_relativistic_step_judges_each_sample_against_its_real_example():
    """Both players' steps written out on plain gradient descent."""
    model, twin = small(), small()
    batches = []

    def remember(batch, generator):
        batches.append(batch)
        return batch

    game = players(RELATIVISTIC, optimizer=torch.optim.SGD)
    run(model, game, steps=1, transform=remember, learning_rate=0.1)
    torch.manual_seed(0)  # the seed of `fit`
    d, g = twin.discriminator, twin.generator
    for network, sign in ((d, 1), (g, -1)):
        real, fake = batches.pop(0), g(torch.randn(16, 3))
        loss = -torch.sigmoid(sign * (d(real) - d(fake))).log().mean()
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        for p, gradient in zip(network.parameters(), gradients, strict=True):
            p.data -= 0.1 * gradient
    torch.testing.assert_close(weights(model), weights(twin))


@pytest.mark.parametrize("settings", [{}, {"ema": 0.9, "gradient_clip": 1.0}])
def test_a_stopped_game_goes_on_exactly(tmp_path, settings):
    game = players(
        discriminator_updates=2, penalty=lambda d, real, fake: gradient_penalty(d, real, fake)
    )
    settings = {**settings, "schedule": linear_decay, "evaluate_every": 5}
    whole = small()
    expected = run(whole, game, steps=20, **settings)

    class StoppedError(Exception):
        pass

    def stop(step, model):
        if step == 10:
            raise StoppedError

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(StoppedError):
        run(small(), game, steps=20, checkpoint=path, checkpoint_every=4, callback=stop, **settings)
    resumed = small(seed=5)
    history = run(resumed, game, steps=20, checkpoint=path, checkpoint_every=4, **settings)
    assert torch.equal(weights(resumed), weights(whole))
    assert [row["generator/loss"] for row in history.train] == [
        row["generator/loss"] for row in expected.train
    ]


def test_the_generator_is_averaged():
    decay, trace = 0.8, []
    run(
        small(),
        players(),
        evaluate_every=1,
        callback=lambda s, m: trace.append(weights(m.generator)),
    )
    model = small()
    run(model, players(), ema=decay)
    average = trace[1]
    for step in trace[2:]:
        average = decay * average + (1 - decay) * step
    torch.testing.assert_close(weights(model.generator), average)


def test_terms_are_recorded_with_their_player():
    model = small()
    history = run(model, players(penalty=lambda d, r, f: 0 * r1_penalty(d, r)), steps=3)
    row = history.train[0]
    assert set(row) == {
        "step", "seconds", "discriminator/loss", "discriminator/real", "discriminator/fake",
        "discriminator/penalty", "generator/loss",
    }  # fmt: skip
    assert 0 < row["discriminator/real"] < 1
    # A mean over the updates of a step: k does not multiply what is recorded.
    ones = Player(
        "p", lambda m, b, p: {"loss": m(b).sum(), "one": torch.ones(())}, nn.Module.parameters, 3
    )
    history = fit(nn.Linear(2, 1), [ones], torch.randn(8, 2), steps=2, batch_size=4, progress=False)
    assert history.curve("p/one")[1] == [1.0, 1.0]


def test_nan_stops_and_names_player_and_term():
    def explode(discriminator, real, fake):
        return torch.tensor(math.nan)

    with pytest.raises(
        TrainingError, match=r"step 0, discriminator/loss and discriminator/penalty"
    ):
        run(small(), players(penalty=explode))


GAMES = {
    "minimax": players(MINIMAX),
    "smoothed": players(NON_SATURATING, real_label=0.9),
    "roth": players(penalty=roth_penalty),
    "clipped": players(
        WASSERSTEIN, discriminator_updates=2, discriminator_optimizer=weight_clipping(0.05)
    ),
    "WGAN-GP": players(WASSERSTEIN, penalty=partial(gradient_penalty, weight=10)),
    "hinge": players(HINGE),
    "relativistic, R1 and R2": players(
        RELATIVISTIC, penalty=lambda d, real, fake: r1_penalty(d, real) + r1_penalty(d, fake)
    ),
}


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("data", [X, torch.ones(32, 1, 4, 4)], ids=["varied", "constant"])
def test_every_game_trains_without_nan(game, data):
    model = small()
    before = weights(model)
    history = run(model, GAMES[game], data)
    assert all(math.isfinite(v) for row in history.train for v in row.values())
    assert not torch.equal(weights(model), before)
    if game == "clipped":
        assert weights(model.discriminator).abs().max() <= 0.05


def test_saturated_discriminators_do_not_make_nan():
    for size in (-1e4, 1e4):
        for game in GAMES.values():
            model = small()
            nn.init.constant_(model.discriminator.head.bias, size)
            run(model, game, steps=2)
            assert torch.isfinite(weights(model)).all()


def test_a_conditional_convolutional_game_trains():
    torch.manual_seed(0)
    x, labels = torch.rand(32, 1, 8, 8), torch.arange(32) % 3
    model = GAN(
        ConvGenerator((1, 8, 8), 4, 2, n_classes=3),
        ConvDiscriminator((1, 8, 8), 2, n_classes=3, spectral_norm=True),
    )
    game = players(penalty=lambda d, real, fake: r1_penalty(d, real, gamma=0.1))
    before = weights(model.generator)
    run(model, game, (x, labels), steps=3, ema=0.9)
    assert not torch.equal(weights(model.generator), before)
    assert model.sample(4, labels=torch.tensor([0, 1, 2, 0])).shape == (4, 1, 8, 8)


def test_bad_games_are_refused():
    with pytest.raises(ValueError, match=r"discriminator_updates \(k\) is 0"):
        players(discriminator_updates=0)
    with pytest.raises(ValueError, match="one example"):
        run(small(), players(), batch_size=1)
    with pytest.raises(ValueError, match=r"values in \[-1, 1\]"):
        run(
            small(), players(), torch.cat([-torch.ones_like(X), torch.ones_like(X)]), batch_size=192
        )
    with pytest.raises(ValueError, match="several players"):
        run(small(), players(), validation=X)


def test_bad_players_are_refused():
    model = small()
    d, g = players()
    both = Player("both", g.loss, nn.Module.parameters)
    with pytest.raises(ValueError, match="'discriminator' and 'both' share a parameter"):
        run(model, [d, both])
    with pytest.raises(ValueError, match="a name of its own"):
        run(model, [d, d])
    with pytest.raises(ValueError, match="updates of the player 'none' is 0"):
        run(model, [Player("none", g.loss, g.parameters, updates=0)])
    with pytest.raises(ValueError, match="at least one"):
        run(model, [])


def test_players_have_no_momentum_and_remember_squares_for_a_hundred_steps():
    """Adam with β = (0, 0.99) by hand: a step of lr · g / √v, v the mean of g² without its bias."""
    for player in players():
        x = nn.Parameter(torch.zeros((), dtype=torch.float64))
        optimizer = player.optimizer([x], lr=0.1)
        position, mean = 0.0, 0.0
        for step, slope in enumerate([1.0, -3.0, 0.0, 2.0], 1):
            x.grad = torch.full_like(x, slope)
            optimizer.step()
            mean = 0.99 * mean + 0.01 * slope**2
            position -= 0.1 * slope / math.sqrt(mean / (1 - 0.99**step))
            assert x.item() == pytest.approx(position, abs=1e-7)


def test_each_player_has_its_own_learning_rate():
    model = small()
    before = weights(model.generator)
    d, g = players(optimizer=torch.optim.SGD)
    slow = Player(g.name, g.loss, g.parameters, learning_rate=1e-12, optimizer=torch.optim.SGD)
    run(model, [d, slow])
    assert (weights(model.generator) - before).abs().max() < 1e-8
