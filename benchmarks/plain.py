"""The course's networks once more, in plain PyTorch: as one would write them for this size only."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import autoregressive as ar


class PlainVAE(nn.Module):
    """The VAE of the MNIST table as one would write it down."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(),
            nn.Linear(500, 80),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(40, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 784)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Minus the ELBO, a mean over images."""
        mu, logvar = self.encoder(x).chunk(2, 1)
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
        kl = 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum()
        logits = self.decoder(z)
        nll = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum")
        return (nll + kl) / len(x)


class PlainMADE(nn.Module):
    """MADE as one would write it down: linear layers and a mask for each."""

    def __init__(self, made: ar.MADE) -> None:
        super().__init__()
        self.linears = nn.ModuleList(
            nn.Linear(linear.in_features, linear.out_features) for linear in made.linears
        )
        for index in range(len(made.linears)):
            self.register_buffer(f"mask_{index}", made.get_buffer(f"mask_{index}")[0].clone())

    def forward(self, x: Tensor) -> Tensor:
        """Mean negative log-likelihood of grey levels `x`."""
        h = x.flatten(1).float() / 8 - 1
        for index, linear in enumerate(self.linears):
            h = F.linear(h, linear.weight * self.get_buffer(f"mask_{index}"), linear.bias)
            if index + 1 < len(self.linears):
                h = F.relu(h)
        loss = F.cross_entropy(h.view(-1, 17), x.flatten().long(), reduction="sum")
        return loss / len(x)


class PlainNADE(nn.Module):
    """The same function as a given NADE of binary images, with all hidden layers in one tensor."""

    def __init__(self, nade: ar.NADE) -> None:
        super().__init__()
        self.V, self.c = (
            nn.Parameter(nade.V.detach()[:-1].clone()),
            nn.Parameter(nade.c.detach().clone()),
        )
        self.U = nn.Parameter(nade.U.detach().squeeze(-1).clone())
        self.b = nn.Parameter(nade.b.detach().squeeze(-1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """The mean negative log-likelihood."""
        x = x.flatten(1).float()
        terms = (2 * x[:, :-1, None] - 1) * self.V
        sums = self.c + F.pad(terms.cumsum(1), (0, 0, 1, 0))
        logits = (torch.sigmoid(sums) * self.U).sum(-1) + self.b
        return F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1).mean()


class PlainGatedPixelCNN(nn.Module):
    """The gated PixelCNN without masks: kernels cut to size, results cropped."""

    def __init__(self, channels: int, n_layers: int) -> None:
        super().__init__()
        self.n_layers = n_layers
        for i in range(n_layers):
            n_in, r = (channels, 1) if i else (1, 3)
            rows, columns = (r + 1, r + 1) if i else (r, r)
            self.add_module(
                f"v{i}", nn.Conv2d(n_in, 2 * channels, (rows, 2 * r + 1), padding=(r, r))
            )
            self.add_module(f"h{i}", nn.Conv2d(n_in, 2 * channels, (1, columns), padding=(0, r)))
            self.add_module(f"link{i}", nn.Conv2d(2 * channels, 2 * channels, 1))
            self.add_module(f"skip{i}", nn.Conv2d(channels, channels, 1))
            if i < n_layers - 1:
                self.add_module(f"out{i}", nn.Conv2d(channels, channels, 1))
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, 17, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Mean negative log-likelihood of grey levels `x`."""
        height, width = x.shape[2:]
        v = h = x.float() / 8 - 1
        skip = 0
        for i in range(self.n_layers):
            layer = {n: self.get_submodule(f"{n}{i}") for n in ("v", "h", "link", "skip")}
            v = layer["v"](v)[:, :, :height]
            pre = layer["h"](h)[:, :, :, :width] + layer["link"](v)
            a, b = pre.chunk(2, 1)
            gated = torch.tanh(a) * torch.sigmoid(b)
            skip = skip + layer["skip"](gated)
            if i < self.n_layers - 1:
                out = self.get_submodule(f"out{i}")(gated)
                h = out + h if i else out
                a, b = v.chunk(2, 1)
                v = torch.tanh(a) * torch.sigmoid(b)
        return F.cross_entropy(self.head(skip), x[:, 0].long(), reduction="sum") / len(x)


class PlainTransformer(nn.Module):
    """The transformer of 8×8 grey images as one would write it down, with PyTorch's own layers."""

    def __init__(self, width: int, heads: int, n_layers: int) -> None:
        super().__init__()
        self.value = nn.Linear(1, width, bias=False)
        self.near = nn.Conv2d(1, width, (3, 5), padding=(2, 2))
        self.register_buffer("mask", torch.ones(3, 5))
        self.mask[2, 2:] = 0
        self.place = nn.Parameter(0.02 * torch.randn(64, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, 17)
        self.register_buffer("future", nn.Transformer.generate_square_subsequent_mask(64))

    def forward(self, x: Tensor) -> Tensor:
        """Mean negative log-likelihood of grey levels `x`."""
        encoded = x.float() / 8 - 1
        near = F.conv2d(encoded, self.near.weight * self.mask, self.near.bias, padding=(2, 2))
        before = F.pad(encoded.flatten(1), (1, 0))[:, :-1].unsqueeze(-1)
        h = self.value(before) + near[:, :, :8].flatten(2).transpose(1, 2) + self.place
        h = self.layers(h, mask=self.future, is_causal=True)
        logits = self.output(self.norm(h)).flatten(0, 1)
        return F.cross_entropy(logits, x.flatten().long(), reduction="sum") / len(x)
