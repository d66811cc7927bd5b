"""Generators and discriminators: sizes, ranges, classes, Lipschitz constants, independence."""

import copy

import pytest
import torch
from torch import nn

from course_lib.experiments.groups import GroupedDiscriminator, GroupedGenerator
from course_lib.gan import GAN, ConvDiscriminator, ConvGenerator, Discriminator, Generator
from course_lib.protocols import Sampler

SHAPES = [(1, 8, 8), (3, 28, 28), (1, 32, 32), (3, 64, 64), (1, 9, 12)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_convolutional_networks_fit_any_image_size(shape):
    generator, discriminator = ConvGenerator(shape, 5, channels=2), ConvDiscriminator(shape, 2)
    x = generator.sample(3)
    assert x.shape == (3, *shape)
    assert x.min() >= 0
    assert x.max() <= 1
    assert discriminator(x).shape == (3,)


@pytest.mark.parametrize("build", [Generator, ConvGenerator])
def test_samples_are_reproducible_and_in_range(build):
    generator = build((1, 8, 8), 4)
    assert isinstance(generator, Sampler)
    generator.train()
    a, b = (generator.sample(6, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(a, b)  # sampling uses no statistics of the batch and changes none
    assert generator.training
    assert not a.requires_grad
    assert a.std(0).max() > 0  # the noise matters


def test_sampling_that_fails_leaves_the_mode_as_it_is():
    generator = Generator((1, 8, 8), 4, n_classes=3)
    with pytest.raises(ValueError, match="no labels were given"):
        generator.sample(4)
    assert generator.training


@pytest.mark.parametrize("build", [Discriminator, ConvDiscriminator])
@pytest.mark.parametrize("settings", [{}, {"spectral_norm": True}])
def test_no_output_depends_on_another_example(build, settings):
    discriminator = build((1, 8, 8), **settings).eval()
    x = torch.rand(4, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator(x)[2], x)
    assert gradient[2].abs().sum() > 0
    assert gradient[[0, 1, 3]].abs().sum() == 0


def test_spectral_normalization_makes_the_perceptron_one_lipschitz():
    discriminator = Discriminator((6,), (32, 32), spectral_norm=True)
    with torch.no_grad():
        for module in discriminator.modules():
            if isinstance(module, nn.Linear):
                module.parametrizations.weight.original.mul_(7)
    for _ in range(60):  # the power iteration runs while training
        discriminator(torch.randn(2, 6))
    discriminator.eval()
    x, y = torch.randn(2, 500, 6)
    slopes = (discriminator(x) - discriminator(y)).abs() / (x - y).norm(dim=1)
    assert slopes.max() <= 1 + 1e-3
    norms = [
        torch.linalg.matrix_norm(m.weight, 2).item()
        for m in discriminator.modules()
        if isinstance(m, nn.Linear)
    ]
    assert norms == pytest.approx([1.0] * 3, abs=1e-3)


def test_classes_change_what_is_generated_and_judged():
    generator = Generator((1, 8, 8), 4, n_classes=3)
    discriminator = Discriminator((1, 8, 8), (16,), n_classes=3)
    z, zero, two = torch.randn(5, 4), torch.zeros(5).long(), torch.full((5,), 2)
    x = generator(z, zero)
    assert not torch.allclose(x, generator(z, two))
    assert not torch.allclose(discriminator(x, zero), discriminator(x, two))
    assert GAN(generator, discriminator).sample(5, labels=two).shape == (5, 1, 8, 8)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_any_integer_type_are_read(dtype):
    generator = Generator((1, 8, 8), 4, n_classes=3)
    discriminator = Discriminator((1, 8, 8), (16,), n_classes=3)
    z, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    x = generator(z, labels)
    assert torch.equal(generator(z, labels.to(dtype)), x)
    assert torch.equal(discriminator(x, labels.to(dtype)), discriminator(x, labels))


@pytest.mark.parametrize("build", [Discriminator, ConvDiscriminator])
def test_a_class_adds_its_vector_to_the_weights_of_the_last_layer(build):
    """Projection: D(x, y) = (w + e_y)·φ(x) + b."""
    judge, x = build((1, 8, 8), n_classes=3).double(), torch.rand(6, 1, 8, 8).double()
    for label in range(3):
        labels = torch.full((6,), label)
        expected = judge(x, labels).detach()
        folded = copy.deepcopy(judge)
        with torch.no_grad():
            folded.head.weight += judge.embedding.weight[label]
            folded.embedding.weight.zero_()
        torch.testing.assert_close(folded(x, labels).detach(), expected)


def test_labels_are_checked():
    generator = Generator((1, 8, 8), 4, n_classes=3)
    z = torch.randn(5, 4)
    with pytest.raises(ValueError, match="no labels were given"):
        generator(z)
    with pytest.raises(ValueError, match=r"0 … 3; 0 … 2 are expected"):
        generator(z, torch.tensor([0, 1, 2, 3, 0]))
    with pytest.raises(TypeError, match=r"integer grey levels 0 … 2 are expected"):
        generator(z, torch.zeros(5))
    with pytest.raises(ValueError, match="4 entries for 5 examples"):
        generator(z, torch.zeros(4).long())
    with pytest.raises(TypeError, match=r"labels is a list; a torch.Tensor is expected"):
        generator(z, [0, 1, 2, 0, 1])
    with pytest.raises(ValueError, match="without classes"):
        Discriminator((2,))(torch.randn(3, 2), torch.zeros(3).long())


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"z has shape \(3, 5\)"):
        Generator((1, 8, 8), 4)(torch.randn(3, 5))
    with pytest.raises(ValueError, match="latent_dim is 0"):
        Generator((1, 8, 8), 0)
    with pytest.raises(ValueError, match="batch of one in training mode"):
        ConvGenerator((1, 8, 8))(torch.randn(1, 64))
    with pytest.raises(ValueError, match="sides of at least 4"):
        ConvDiscriminator((1, 2, 8))
    with pytest.raises(ValueError, match="the generator has event_shape"):
        GAN(Generator((1, 8, 8)), Discriminator((1, 8, 9)))


def test_groups_are_ordinary_networks_side_by_side():
    """Each group equals a perceptron with its weights, and its gradient sees its own examples only."""
    critic = GroupedDiscriminator(3, (8,), dim=2)
    x = torch.randn(12, 2)
    first, _, second = critic.network
    for g in range(3):
        hidden = nn.functional.leaky_relu(
            x[4 * g : 4 * g + 4] @ first.weight[g] + first.bias[g], 0.2
        )
        alone = (hidden @ second.weight[g] + second.bias[g]).squeeze(1)
        torch.testing.assert_close(critic(x)[4 * g : 4 * g + 4], alone)
    (gradient,) = torch.autograd.grad(critic(x)[4:8].sum(), first.weight)
    assert gradient[1].abs().sum() > 0
    assert gradient[[0, 2]].abs().sum() == 0
    generator = GroupedGenerator(3, latent_dim=2, dim=2)
    samples = generator.sample(5, generator=torch.Generator().manual_seed(0))
    assert samples.shape == (3, 5, 2)
    with pytest.raises(ValueError, match=r"shape \(10, 2\) for 3 groups"):
        generator(torch.randn(10, 2))
