"""Deliberate errors in the library, each of which the suite must notice.

Every mutant is a change of one expression, of a kind that students and libraries really make. The named test
must fail in a process whose import of the file sees the change.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutant:
    """One error: in `file`, `right` becomes `wrong`; `test` must fail."""

    name: str
    file: str
    right: str
    wrong: str
    test: str


MUTANTS = [
    Mutant(
        "masked pixels without their weight",
        "course_lib/autoregressive/masked_diffusion.py",
        "return (sums * (D / number)).view",
        "return sums.view",
        "tests/autoregressive/test_masked_diffusion.py::test_the_estimate_is_unbiased_with_any_number_of_draws",
    ),
    Mutant(
        "known pixels summed with the masked ones",
        "course_lib/autoregressive/masked_diffusion.py",
        "return torch.where(known, 0, each).flatten(1).sum(1)",
        "return each.flatten(1).sum(1)",
        "tests/autoregressive/test_masked_diffusion.py::test_the_estimate_is_unbiased_with_any_number_of_draws",
    ),
    Mutant(
        "masked values read",
        "course_lib/autoregressive/masked_diffusion.py",
        "self.encode(x) * (1 - masked)",
        "self.encode(x)",
        "tests/autoregressive/test_masked_diffusion.py::test_what_is_masked_is_not_read",
    ),
    Mutant(
        "one place of the future read",
        "course_lib/attention.py",
        "device=device).tril()",
        "device=device).tril(1)",
        "tests/autoregressive/test_attention.py::test_weights_are_distributions_over_the_past",
    ),
    Mutant(
        "the future normalized over, with the scores 0",
        "course_lib/attention.py",
        "scores.masked_fill(~mask, -math.inf)",
        "scores.masked_fill(~mask, 0)",
        "tests/autoregressive/test_attention.py::test_weights_are_distributions_over_the_past",
    ),
    Mutant(
        "no mask in the fused attention",
        "course_lib/fast/attention.py",
        "return _cpu(queries, keys, values, 0.0, causal)",
        "return _cpu(queries, keys, values, 0.0, False)",
        "tests/autoregressive/test_attention.py::test_the_cache_of_a_layer_gives_what_the_layer_gives_pixel_by_pixel",
    ),
    Mutant(
        "scores not divided by √d",
        "course_lib/attention.py",
        "scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])",
        "scores = queries @ keys.transpose(-1, -2)",
        "tests/autoregressive/test_attention.py::test_causal_attention",
    ),
    Mutant(
        "scores of the cache not divided by √d",
        "course_lib/fast/attention.py",
        "scale[:width] = size**-0.5",
        "scale[:width] = 1.0",
        "tests/autoregressive/test_attention.py::test_the_cache_of_a_layer_gives_what_the_layer_gives_pixel_by_pixel",
    ),
    Mutant(
        "a stale row in the cache",
        "course_lib/fast/attention.py",
        "self.values[:, place] = value.reshape(self.row)",
        "self.values[:, max(place - 1, 0)] = value.reshape(self.row)",
        "tests/autoregressive/test_attention.py::test_the_cache_of_a_layer_gives_what_the_layer_gives_pixel_by_pixel",
    ),
    Mutant(
        "values of the cache beside the keys",
        "course_lib/fast/attention.py",
        "self.values[:, : place + 1]).view(self.shape)",
        "self.values[:, : place + 1].roll(1, 1)).view(self.shape)",
        "tests/autoregressive/test_attention.py::test_every_way_to_sample_and_to_complete_draws_the_same",
    ),
    Mutant(
        "a pixel told its own value",
        "course_lib/autoregressive/transformer.py",
        "F.pad(encoded.flatten(1)[:, self.order[:-1]], (1, 0))",
        "encoded.flatten(1)[:, self.order]",
        "tests/autoregressive/test_attention.py::test_a_transformer_sees_all_of_its_past_with_one_layer_and_no_future",
    ),
    Mutant(
        "the codes of a VQ-VAE for nothing",
        "course_lib/vae/vqvae.py",
        "log_prob(x) - codes[0].numel() * math.log(self.n_codes)",
        "log_prob(x)",
        "tests/vae/test_vqvae.py::test_the_bound_of_the_uniform_prior",
    ),
    Mutant(
        "no gradient past the codes",
        "course_lib/vae/vqvae.py",
        "return z + (quantized - z).detach()",
        "return quantized",
        "tests/vae/test_vqvae.py::test_the_terms_of_the_loss_move_what_they_are_for",
    ),
    Mutant(
        "the ½ of the KL dropped",
        "course_lib/divergences.py",
        "return 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(-1)",
        "return (logvar.exp() + mu.square() - 1 - logvar).sum(-1)",
        "tests/vae/test_bounds.py::test_elbo_is_log_prob_minus_the_posterior_gap",
    ),
    Mutant(
        "the KL averaged over latent dimensions",
        "course_lib/divergences.py",
        "return 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(-1)",
        "return 0.5 * (logvar.exp() + mu.square() - 1 - logvar).mean(-1)",
        "tests/vae/test_bounds.py::test_elbo_is_log_prob_minus_the_posterior_gap",
    ),
    Mutant(
        "the arguments of the KL exchanged",
        "course_lib/divergences.py",
        "ratio = sigma_q / sigma_p",
        "sigma_q, sigma_p = sigma_p, sigma_q\n    ratio = sigma_q / sigma_p",
        "tests/vae/test_kl_equations.py::test_kl_univariate",
    ),
    Mutant(
        "log σ taken for log σ²",
        "course_lib/vae/posterior.py",
        "(0.5 * logvar).exp()",
        "logvar.exp()",
        "tests/vae/test_vae.py::test_elbo_is_the_mean_of_log_weights",
    ),
    Mutant(
        "the importance-weighted bound as a mean of logs",
        "course_lib/vae/bounds.py",
        "return log_weights.logsumexp(dim) - math.log(log_weights.shape[dim])",
        "return log_weights.mean(dim)",
        "tests/vae/test_bounds.py::test_bounds_are_ordered_and_tend_to_log_prob",
    ),
    Mutant(
        "the importance-weighted bound without −log k",
        "course_lib/vae/bounds.py",
        "return log_weights.logsumexp(dim) - math.log(log_weights.shape[dim])",
        "return log_weights.logsumexp(dim)",
        "tests/vae/test_bounds.py::test_bounds_are_ordered_and_tend_to_log_prob",
    ),
    Mutant(
        "the sign of the KL term",
        "course_lib/vae/bounds.py",
        "return reconstruction - kl",
        "return reconstruction + kl",
        "tests/vae/test_bounds.py::test_elbo_is_log_prob_minus_the_posterior_gap",
    ),
    Mutant(
        "pixels averaged in the linear autoencoder's error",
        "course_lib/vae/autoencoder.py",
        "error.square().flatten(1).sum(1)",
        "error.square().flatten(1).mean(1)",
        "tests/vae/test_autoencoder_and_wae.py::test_linear_autoencoder_finds_the_principal_subspace",
    ),
    Mutant(
        "dequantization by K − 1",
        "course_lib/data.py",
        "y = torch.minimum((x + u) / levels, largest)",
        "y = (x + u) / (levels - 1)",
        "tests/test_data.py::test_dequantize_fills_the_interval_of_each_level",
    ),
    Mutant(
        "validation batches weighted alike whatever their size",
        "course_lib/training/state.py",
        "len(index) / n * value",
        "value / -(-n // size)",
        "tests/test_training.py::test_validation_weighs_every_example_alike",
    ),
    Mutant(
        "the log-determinant of couplings doubled both ways",
        "course_lib/flow/coupling.py",
        "return self._merge(kept, changed), log_slope.sum(1)",
        "return self._merge(kept, changed), 2 * log_slope.sum(1)",
        "tests/flow/test_transforms.py::test_log_determinant_is_that_of_the_autograd_jacobian",
    ),
    Mutant(
        "the map of a coupling rounded under autocast, and not its network alone",
        "course_lib/flow/coupling.py",
        "parameters = applied_in_type(self.conditioner, kept).to(x.dtype)",
        "parameters = applied_in_type(self.conditioner, kept)",
        "tests/flow/test_models.py::test_autocast_rounds_networks_and_nothing_else",
    ),
    Mutant(
        "the gradient of a masked block left unmasked",
        "course_lib/fast/masked.py",
        "rows[:, block.mixed] *= mask[block.rows, block.mixed]",
        "rows[:, block.mixed] *= 1",
        "tests/shared/test_masked.py::test_products_in_blocks_are_those_with_the_whole_masked_matrix",
    ),
    Mutant(
        "the sign of an affine log-determinant",
        "course_lib/flow/elementwise.py",
        "return (self.shared * self._log_scale().sum()).expand(len(x))",
        "return (-self.shared * self._log_scale().sum()).expand(len(x))",
        "tests/flow/test_transforms.py::test_log_determinant_is_that_of_the_autograd_jacobian",
    ),
    Mutant(
        "the Jacobian of the logit dropped",
        "course_lib/flow/elementwise.py",
        "return slope.flatten(1).sum(1)",
        "return 0 * slope.flatten(1).sum(1)",
        "tests/flow/test_transforms.py::test_log_determinant_is_that_of_the_autograd_jacobian",
    ),
    Mutant(
        "255 for 256 levels",
        "course_lib/flow/dequantization.py",
        "return log_density - math.prod(event_shape) * math.log(levels)",
        "return log_density - math.prod(event_shape) * math.log(levels - 1)",
        "tests/flow/test_dequantization.py::test_uniform_is_below_variational_is_below_the_truth",
    ),
    Mutant(
        "masks that never alternate",
        "course_lib/flow/realnvp.py",
        "mask = make_mask(event_shape, flip=index % 2 == 1)",
        "mask = make_mask(event_shape, flip=False)",
        "tests/flow/test_models.py::test_masks_of_successive_couplings_alternate",
    ),
    Mutant(
        "the gradient penalty at real points",
        "course_lib/gan/penalties.py",
        "points = mix * real.detach() + (1 - mix) * fake.detach()",
        "points = real.detach()",
        "tests/gan/test_penalties.py::test_gradient_penalty_is_taken_at_interpolates_with_a_weight_per_pair",
    ),
    Mutant(
        "the norm of the gradient over the batch",
        "course_lib/gan/penalties.py",
        "excess = _gradient(critic, points)[1].norm(dim=1) - 1",
        "excess = _gradient(critic, points)[1].norm(dim=0) - 1",
        "tests/gan/test_penalties.py::test_gradient_penalty_is_taken_at_interpolates_with_a_weight_per_pair",
    ),
    Mutant(
        "the discriminator's step through the generator",
        "course_lib/gan/gan.py",
        "with torch.no_grad():  # detached",
        "with torch.enable_grad():  # detached",
        "tests/gan/test_training.py::test_the_discriminators_step_sends_nothing_to_the_generator",
    ),
    Mutant(
        "both labels smoothed",
        "course_lib/gan/losses.py",
        "return real.mean() + softplus(fake_logits).mean()",
        "return real.mean() + (softplus(fake_logits) - (1 - real_label) * fake_logits).mean()",
        "tests/gan/test_losses.py::test_only_the_real_label_is_smoothed",
    ),
    Mutant(
        "R1 with γ for γ/2",
        "course_lib/gan/penalties.py",
        "return gamma / 2 * gradient.square().sum(1).mean()",
        "return gamma * gradient.square().sum(1).mean()",
        "tests/gan/test_penalties.py::test_r1_is_taken_at_real_examples_with_gamma_over_two",
    ),
    Mutant(
        "the noise of a noising step without its root",
        "course_lib/diffusion/ddpm.py",
        "(-torch.expm1(log_alpha_bar)).sqrt()",
        "-torch.expm1(log_alpha_bar)",
        "tests/diffusion/test_diffusion_equations.py::test_noising_marginal",
    ),
    Mutant(
        "β for the variance of the posterior",
        "course_lib/diffusion/steps.py",
        "return beta * (s.sigma / t.sigma).square(), beta",
        "return beta, beta",
        "tests/diffusion/test_diffusion_equations.py::test_reverse_variance",
    ),
    Mutant(
        "ᾱ shifted by one step in the posterior's mean",
        "course_lib/diffusion/steps.py",
        "of_x = s.alpha * beta / t.sigma.square()",
        "of_x = t.alpha * beta / t.sigma.square()",
        "tests/diffusion/test_diffusion_equations.py::test_noising_posterior",
    ),
    Mutant(
        "the prior's term of the bound dropped",
        "course_lib/diffusion/diffusion.py",
        "return self.prior + self.diffusion + self.reconstruction",
        "return self.diffusion + self.reconstruction",
        "tests/diffusion/test_diffusion_equations.py::test_diffusion_elbo",
    ),
    Mutant(
        "the ½ of a denoising step's KL dropped",
        "course_lib/diffusion/steps.py",
        "return 0.5 * (s.snr - t.snr)",
        "return (s.snr - t.snr)",
        "tests/diffusion/test_diffusion_equations.py::test_snr_kl",
    ),
    Mutant(
        "the squared error of the bound averaged over entries",
        "course_lib/diffusion/diffusion.py",
        "error = (x - predicted).square().flatten(1).sum(1)",
        "error = (x - predicted).square().flatten(1).mean(1)",
        "tests/diffusion/test_diffusion.py::test_the_terms_are_sums_over_entries",
    ),
    Mutant(
        "the clean example clipped and the noise kept",
        "course_lib/diffusion/parametrizations.py",
        '    clean = clean.clamp(-1, 1)\n    return clean, from_clean("noise", clean, z, alpha, sigma)',
        '    return clean.clamp(-1, 1), from_clean("noise", clean, z, alpha, sigma)',
        "tests/diffusion/test_diffusion_equations.py::test_parametrizations",
    ),
    Mutant(
        "noise added by the last step of a sampler",
        "course_lib/diffusion/samplers.py",
        "        if s.sigma > 0:\n            z = z + (small",
        "        if s.sigma >= 0:\n            z = z + (small",
        "tests/diffusion/test_diffusion.py::test_the_last_step_to_no_noise_adds_none",
    ),
    Mutant(
        "16 for 17 levels",
        "course_lib/diffusion/diffusion.py",
        "every = torch.arange(self.levels, device=like.device)",
        "every = torch.arange(self.levels, device=like.device).clamp(max=self.levels - 2)",
        "tests/diffusion/test_diffusion_equations.py::test_level_posterior",
    ),
    Mutant(
        "guidance off by one",
        "course_lib/guidance.py",
        "return (1 + w) * conditional - w * unconditional",
        "return w * conditional - (w - 1) * unconditional",
        "tests/diffusion/test_diffusion_equations.py::test_guidance",
    ),
    Mutant(
        "the class never left out in training",
        "course_lib/guidance.py",
        "return torch.where(chance < probability, n_classes, labels)",
        "return torch.where(chance < 0, n_classes, labels)",
        "tests/diffusion/test_diffusion.py::test_as_many_labels_are_left_out_as_stated",
    ),
    Mutant(
        "known entries put in as they are, at every noise level",
        "course_lib/diffusion/samplers.py",
        "given = at.alpha * clean + at.sigma * _noise(z, generator)",
        "given = clean",
        "tests/diffusion/test_diffusion.py::test_completion_by_replacement_samples_what_its_formula_says",
    ),
    Mutant(
        "the sign of the divergence in a flow's log-density",
        "course_lib/solvers.py",
        ', "log_prior(x)") + integral',
        ', "log_prior(x)") - integral',
        "tests/diffusion/test_diffusion_equations.py::test_ode_likelihood",
    ),
    Mutant(
        "responsibilities of the unnoised mixture",
        "course_lib/mixtures.py",
        "apart = x.unsqueeze(1) - alpha * self.means",
        "apart = x.unsqueeze(1) - self.means",
        "tests/diffusion/test_diffusion_equations.py::test_mixture_score",
    ),
    Mutant(
        "time reversed without the sign of the velocity",
        "course_lib/flow_matching/translations.py",
        "return lambda x, t: -velocity(x, 1 - t)",
        "return lambda x, t: velocity(x, 1 - t)",
        "tests/flow_matching/test_translations.py::test_reversed_time_runs_from_noise_to_data_forwards",
    ),
    Mutant(
        "the end point fed to the velocity",
        "course_lib/flow_matching/objectives.py",
        "error = model(model.schedule.noised(x, noise, t), t, labels) - target",
        "error = model(x, t, labels) - target",
        "tests/flow_matching/test_velocity_flow.py::test_the_network_sees_the_noised_example_at_its_own_time",
    ),
    Mutant(
        "the sign of the divergence of a velocity flow",
        "course_lib/solvers.py",
        ', "log_prior(x)") + integral',
        ', "log_prior(x)") - integral',
        "tests/flow_matching/test_velocity_flow.py::test_the_log_density_is_that_of_the_maps_jacobian",
    ),
    Mutant(
        "the last divergence alone",
        "course_lib/solvers.py",
        "    end, integral = _solve(rates, (x, x.new_zeros(len(x))), times, method)\n",
        "    end, integral = _solve(rates, (x, x.new_zeros(len(x))), times, method)\n"
        "    integral = rates((end,), times[-1])[1]\n",
        "tests/flow_matching/test_velocity_flow.py::test_the_density_of_the_exact_velocity_is_the_mixtures",
    ),
    Mutant(
        "probes drawn anew within a solve",
        "course_lib/solvers.py",
        "return probed_divergence(velocity, state[0], t, probes)",
        "return probed_divergence(velocity, state[0], t, draw_probes(state[0], len(probes)))",
        "tests/flow_matching/test_velocity_flow.py::test_probes_stay_the_same_within_a_solve",
    ),
    Mutant(
        "reflow with new noise",
        "course_lib/flow_matching/reflow.py",
        "    return (torch.cat(made), noise) if labels is None",
        "    noise = model.prior(n, generator=generator)\n"
        "    return (torch.cat(made), noise) if labels is None",
        "tests/flow_matching/test_couplings_and_reflow.py"
        "::test_reflow_pairs_hold_the_noise_from_which_each_example_came",
    ),
    Mutant(
        "a pairing blind to the classes",
        "course_lib/flow_matching/couplings.py",
        "    if labels is None:\n        return noise[optimal_pairing(x, noise)]",
        "    if True:\n        return noise[optimal_pairing(x, noise)]",
        "tests/flow_matching/test_couplings_and_reflow.py::test_each_class_keeps_its_own_noise",
    ),
    Mutant(
        "the transport term of the average velocity dropped",
        "course_lib/flow_matching/mean_flow.py",
        "direction = (velocity, torch.zeros_like(r), torch.ones_like(t))",
        "direction = (torch.zeros_like(velocity), torch.zeros_like(r), torch.ones_like(t))",
        "tests/flow_matching/test_mean_flow_and_consistency.py"
        "::test_the_true_average_velocity_is_its_own_target",
    ),
]


@pytest.fixture(scope="module")
def server():
    """A process that runs mutants, one after another; see `tests.mutation`."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.mutation"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


def run(server, mutant):
    server.stdin.write(json.dumps(asdict(mutant)) + "\n")
    server.stdin.flush()
    answer = json.loads(server.stdout.readline())
    return answer["status"], answer["output"]


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_suite_notices(mutant, server):
    status, output = run(server, mutant)
    # Exit status 1: tests ran and some failed. Anything else is an error of its own.
    assert status == 1, f"{mutant.test} did not notice:\n{output}"
    assert "AssertionError" in output or "assert" in output


@pytest.mark.mutants
def test_a_test_passes_there_where_nothing_is_changed(server):
    status, output = run(server, replace(MUTANTS[0], wrong=MUTANTS[0].right))
    assert status == 0, output


@pytest.mark.mutants
def test_an_expression_that_is_gone_is_an_error(server):
    status, output = run(server, replace(MUTANTS[0], right="nowhere in the file"))
    assert status == 70, output
