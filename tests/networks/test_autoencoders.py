"""The autoencoders: scaling, round trips, frozenness, and weights out of reach."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_ad.networks import Autoencoder, KLAutoencoder, Taef2Autoencoder, TinyAutoencoder


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def kl_folder(tmp_path: Path) -> str:
    torch.manual_seed(0)
    network = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=6,
        scaling_factor=0.5,
    )
    network.save_pretrained(tmp_path / "kl")
    return str(tmp_path / "kl")


@pytest.fixture
def tiny_folder(tmp_path: Path) -> str:
    torch.manual_seed(0)
    widths = {"encoder_block_out_channels": (8,) * 3, "decoder_block_out_channels": (8,) * 3}
    blocks = {"num_encoder_blocks": (1,) * 3, "num_decoder_blocks": (1,) * 3}
    AutoencoderTiny(**widths, **blocks).save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


def test_kl_latents_are_diffusers_posterior_scaled(kl_folder: str, image: Tensor):
    autoencoder = KLAutoencoder(kl_folder)
    autoencoder.load_pretrained()
    diffusers = AutoencoderKL.from_pretrained(kl_folder).eval()
    with torch.inference_mode():
        posterior = diffusers.encode(image).latent_dist
        decoded = diffusers.decode(posterior.mean).sample
    latent = autoencoder.encode(image)
    assert (autoencoder.channels, autoencoder.factor) == (6, 2)
    torch.testing.assert_close(latent, posterior.mean * 0.5)
    torch.testing.assert_close(autoencoder.decode(latent), decoded)
    sample = autoencoder.encode(image, sample=True, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(sample, (posterior.mean + posterior.std * noise) * 0.5)


def test_a_truncated_file_of_a_tiny_autoencoder_is_named(tmp_path: Path):
    save_file({"0.weight": torch.zeros(8, 8)}, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-10])
    autoencoder = Taef2Autoencoder(str(tmp_path / "cut.safetensors"), "absent")
    with pytest.raises(ValueError, match=r"encoder: .*cut\.safetensors is no complete"):
        autoencoder.load_pretrained()
    autoencoder = Taef2Autoencoder(str(tmp_path / "whole.safetensors"), "absent")
    with pytest.raises(ValueError, match=r"encoder: .*whole\.safetensors holds another arch"):
        autoencoder.load_pretrained()


def test_weights_whose_latents_are_scaled_otherwise_are_refused(kl_folder: str):
    architecture = {**KLAutoencoder(kl_folder).architecture, "scaling_factor": 0.25}
    autoencoder = KLAutoencoder(kl_folder, architecture)
    with pytest.raises(ValueError, match=r"scales its latents by 0.5, .* by 0.25.*architecture"):
        autoencoder.load_pretrained()


def test_tiny_latents_are_diffusers_and_have_no_spread(tiny_folder: str, image: Tensor):
    autoencoder = TinyAutoencoder(tiny_folder)
    autoencoder.load_pretrained()
    diffusers = AutoencoderTiny.from_pretrained(tiny_folder).eval()
    latent = autoencoder.encode(image)
    assert latent.shape == (2, autoencoder.channels, 32 // autoencoder.factor, 8)
    with torch.inference_mode():
        torch.testing.assert_close(latent, diffusers.encode(image).latents)
        torch.testing.assert_close(autoencoder.decode(latent), diffusers.decode(latent).sample)
    assert torch.equal(autoencoder.encode(image, sample=True), latent)


def test_the_default_architectures_are_the_published_ones():
    with torch.device("meta"):
        kl, tiny = KLAutoencoder(), TinyAutoencoder()
    assert (kl.channels, kl.factor, kl.scale) == (4, 8, 0.18215)
    assert sum(p.numel() for p in kl.parameters()) == 83_653_863  # sd-vae-ft-mse
    assert (tiny.channels, tiny.factor) == (4, 8)
    assert sum(p.numel() for p in tiny.parameters()) == 2_445_063  # taesd


def plain_taef2(weights: dict[str, Tensor], x: Tensor, strides: dict[int, int]) -> Tensor:
    """Walk the published files' numbered entries; doubles where an entry is missing in between."""
    last = max(int(key.split(".")[0]) for key in weights)
    for i in range(min(strides), last + 1):
        if f"{i}.conv.0.weight" in weights:
            x = plain_taef2_block(weights, f"{i}.", x)
        elif f"{i}.weight" in weights:
            bias, stride = weights.get(f"{i}.bias"), strides.get(i, 1)
            x = F.conv2d(x, weights[f"{i}.weight"], bias, stride, padding=1)
        elif i == 2:
            x = x.relu()
        else:
            x = F.interpolate(x, scale_factor=2)
    return x


def plain_taef2_block(weights: dict[str, Tensor], entry: str, x: Tensor) -> Tensor:
    def conv(name: str, x: Tensor, padding: int = 0) -> Tensor:
        name = entry + name
        return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), padding=padding)

    if f"{entry}pool.0.weight" in weights:
        scale, shift = weights[f"{entry}pool.1.weight"], weights[f"{entry}pool.1.bias"]
        x = x + conv("pool.3", F.group_norm(conv("pool.0", x), 4, scale, shift).relu())
    y = x
    for name in ("conv.0", "conv.2", "conv.4"):
        y = conv(name, y.relu() if name != "conv.0" else y, padding=1)
    return (x + y).relu()


def test_taef2_files_are_walked_as_published(tmp_path: Path, image: Tensor):
    torch.manual_seed(0)
    files = [str(tmp_path / f"{half}.safetensors") for half in ("encoder", "decoder")]
    source, autoencoder = Taef2Autoencoder(*files), Taef2Autoencoder(*files)
    encoder, decoder = (half.state_dict() for half in (source.encoder, source.decoder))
    for file, state in zip(files, (encoder, decoder), strict=True):
        save_file({name: 1.5 * value for name, value in state.items()}, file)
    autoencoder.load_pretrained()
    encoder, decoder = map(load_file, files)
    latent = autoencoder.encode(image)
    expected = plain_taef2(encoder, (image + 1) / 2, {0: 1, 2: 2, 6: 2, 10: 2}) / 0.76
    torch.testing.assert_close(latent, expected, rtol=1e-4, atol=1e-5)
    assert latent.shape == (2, 32, 4, 4)
    z = 5 * torch.randn(2, 32, 4, 4)
    decoded = plain_taef2(decoder, 3 * torch.tanh(z * 0.76 / 3), {1: 1}) * 2 - 1
    torch.testing.assert_close(autoencoder.decode(z), decoded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["KL", "tiny"])
def test_it_stays_frozen_and_in_eval_mode(kl_folder, tiny_folder, image, kind):
    autoencoder: Autoencoder = (
        KLAutoencoder(kl_folder) if kind == "KL" else TinyAutoencoder(tiny_folder)
    )
    around = torch.nn.Sequential(autoencoder).train()
    assert not any(module.training for module in around[0].modules())
    assert not any(parameter.requires_grad for parameter in around.parameters())
    assert not autoencoder.decode(autoencoder.encode(image.requires_grad_())).requires_grad


def test_an_image_of_another_size_is_refused_with_both_numbers(tiny_folder: str):
    with pytest.raises(ValueError, match=r"30 x 32.*factor 4"):
        TinyAutoencoder(tiny_folder).encode(torch.zeros(1, 3, 30, 32))


def test_an_unreachable_hub_says_which_files_go_where(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with torch.device("meta"):
        autoencoder = TinyAutoencoder()
    with pytest.raises(FileNotFoundError) as raised:
        autoencoder.load_pretrained()
    for words in ("madebyollin/taesd", "diffusion_pytorch_model.safetensors", "`weights`"):
        assert words in str(raised.value)


def test_weights_of_another_architecture_are_refused(kl_folder: str):
    autoencoder = KLAutoencoder(kl_folder)
    AutoencoderKL(block_out_channels=(16,), norm_num_groups=4).save_pretrained(kl_folder)
    with pytest.raises(ValueError, match="another architecture"):
        autoencoder.load_pretrained()
    with pytest.raises(ValueError, match=r"config\.json describes a AutoencoderKL"):
        TinyAutoencoder(kl_folder)


def test_a_missing_taef2_file_is_named(tmp_path: Path):
    autoencoder = Taef2Autoencoder(str(tmp_path / "nowhere.safetensors"), "")
    with pytest.raises(FileNotFoundError, match=r"encoder.*nowhere.*taef2_encoder"):
        autoencoder.load_pretrained()
