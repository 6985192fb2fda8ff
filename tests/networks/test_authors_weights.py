"""Published checkpoints give the authors' outputs in our networks; wrong files are explained."""

import argparse
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_modules import MVTecAD, VisA
from lightning_ad.cli import main
from lightning_ad.commands.import_weights import DECO_CATEGORIES
from lightning_ad.detector.checkpoint import load_weights
from lightning_ad.methods import DDAD, InvAD
from lightning_ad.networks import ContextUNet, DiffusionUNet
from lightning_ad.networks.authors_weights import (
    Method,
    denoiser_for,
    import_denoiser,
    read_checkpoint,
)
from tests.recordings import authors_denoiser, authors_weights, every_fourth, recorded


@pytest.mark.parametrize("method", ["ddad", "d3ad"])
def test_pixel_unet_reproduces_the_authors_output(method: Method):
    case = recorded(f"{method}_unet")
    with torch.inference_mode():
        eps = authors_denoiser(method)(case["x"], case["t"])
    torch.testing.assert_close(every_fourth(eps), case["eps"], rtol=1e-4, atol=1e-4)


def test_context_unet_reproduces_the_authors_output():
    case = recorded("deco_unet")
    with torch.inference_mode():
        d = authors_denoiser("deco")(case["x"], case["t"], case["classes"])
    torch.testing.assert_close(every_fourth(d), case["out"], rtol=1e-4, atol=1e-4)


WIDTH, CHANNELS, SIDE, DEPTH = 32, 6, 3, 2


def invad_weights() -> dict[str, Tensor]:
    """Noise in the layout of the published files of InvAD, small."""
    linear = {
        "t_embedder.mlp.0": (WIDTH, 256),
        "t_embedder.mlp.2": (WIDTH, WIDTH),
        "x_embedder_linear": (WIDTH, CHANNELS),
        "final_layer.linear": (CHANNELS, WIDTH),
        "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH),
        "x_embedder.proj": (WIDTH, CHANNELS, 1, 1),
    }
    for block in range(DEPTH):
        for name, out, into in (
            *(("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)),
            ("adaLN_modulation.1", 6, 1),
        ):
            linear[f"blocks.{block}.{name}"] = (out * WIDTH, into * WIDTH)
    shapes = {f"net.{name}.weight": shape for name, shape in linear.items()}
    shapes |= {f"net.{name}.bias": shape[:1] for name, shape in linear.items()}
    shapes["net.pos_embed"] = (1, SIDE**2, WIDTH)
    shapes |= {"net.y_embedder.embedding_table.weight": (15, WIDTH)}
    shapes |= {"cls_embed.weight": (15, WIDTH)}
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randn(s, generator=generator) / s[-1] ** 0.5 for n, s in shapes.items()}


def dit(w: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
    """What the authors' transformer computes, written out; heads side by side in the width."""

    def linear(name: str, y: Tensor) -> Tensor:
        return y @ w[f"net.{name}.weight"].flatten(1).T + w[f"net.{name}.bias"]

    def modulated(y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return F.layer_norm(y, (WIDTH,), eps=1e-6) * (1 + scale) + shift

    angles = t[:, None] * 10_000 ** -(torch.arange(128) / 128)
    time = linear("t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()], 1))
    time = F.silu(linear("t_embedder.mlp.2", F.silu(time)))[:, None]
    y = linear("x_embedder.proj", x.flatten(2).transpose(1, 2)) + w["net.pos_embed"]
    for block in (f"blocks.{number}" for number in range(DEPTH)):
        a, b, c, d, e, f = linear(f"{block}.adaLN_modulation.1", time).split(WIDTH, -1)
        q, k, v = linear(f"{block}.attn.qkv", modulated(y, a, b)).split(WIDTH, -1)
        heads = []
        for part in (slice(head * 4, head * 4 + 4) for head in range(8)):
            weight = (q[..., part] @ k[..., part].transpose(1, 2) / 4**0.5).softmax(-1)
            heads.append(weight @ v[..., part])
        y = y + c * linear(f"{block}.attn.proj", torch.cat(heads, -1))
        hidden = F.gelu(linear(f"{block}.mlp.fc1", modulated(y, d, e)), approximate="tanh")
        y = y + f * linear(f"{block}.mlp.fc2", hidden)
    shift, scale = linear("final_layer.adaLN_modulation.1", time).split(WIDTH, -1)
    y = linear("final_layer.linear", modulated(y, shift, scale))
    return y.transpose(1, 2).unflatten(2, x.shape[-2:])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_published_file_of_invad_gives_its_transformer(tmp_path: Path, prefix: str):
    published = {f"{prefix}{name}": value for name, value in invad_weights().items()}
    torch.save(published, tmp_path / "model_ema_latest.pth")
    paths = [f"--checkpoint={tmp_path / 'model_ema_latest.pth'}", f"--output={tmp_path / 'o.ckpt'}"]
    main(["import", "--method=invad", *paths])
    denoiser = denoiser_for("invad", invad_weights())
    assert (denoiser.channels, denoiser.side, len(denoiser.blocks)) == (CHANNELS, SIDE, DEPTH)
    detector = InvAD(denoiser, nn.Identity())
    load_weights(detector, tmp_path / "o.ckpt")
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(2, CHANNELS, SIDE, SIDE, generator=generator), torch.tensor([3, 999])
    with torch.inference_mode():
        eps = detector.denoiser(x, t)
    torch.testing.assert_close(eps, dit(invad_weights(), x, t), rtol=1e-4, atol=1e-4)


def test_other_files_are_no_transformer_of_invad(tmp_path: Path):
    with pytest.raises(ValueError, match=r"of invad: key 'net\.x_embedder\.proj\.weight'"):
        denoiser_for("invad", authors_weights("d3ad"))
    torch.save(invad_weights() | {"net.strange": torch.zeros(1)}, tmp_path / "published.pth")
    with pytest.raises(ValueError, match=r"Unknown keys: \['strange'\]"):
        import_denoiser("invad", tmp_path / "published.pth", denoiser_for("invad", invad_weights()))


@pytest.mark.parametrize("method", ["ddad", "d3ad", "deco"])
def test_a_published_file_fills_our_network(tmp_path: Path, method: Method):
    weights = authors_weights(method)
    published = (
        {"model": weights, "args": argparse.Namespace(size="L")}
        if method == "deco"
        else {f"module.{k}": v for k, v in weights.items()}
    )
    torch.save(published, tmp_path / "published.pt")
    denoiser = denoiser_for(method, read_checkpoint(tmp_path / "published.pt"))
    import_denoiser(method, tmp_path / "published.pt", denoiser)
    expected = authors_denoiser(method).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in denoiser.state_dict().items())


def test_settings_are_read_off_the_shapes():
    ddad = denoiser_for("ddad", authors_weights("ddad"))
    assert (ddad.image_size, ddad.channels) == (64, 3)
    assert ddad.unet.config.block_out_channels == (32, 64, 96, 128)
    d3ad = denoiser_for("d3ad", authors_weights("d3ad"))
    assert (d3ad.image_size, d3ad.channels) == (32, 4)
    assert d3ad.unet.mid_block.attentions[0].heads == 8
    deco = denoiser_for("deco", authors_weights("deco"))
    assert (deco.categories, deco.channels) == (5, 4)


def test_unknown_missing_and_misshapen_keys_are_all_listed(tmp_path: Path):
    weights = authors_weights("ddad")
    weights["strange.weight"] = weights.pop("out.2.bias")
    weights["out.0.bias"] = torch.zeros(7)
    torch.save(weights, tmp_path / "published.pt")
    denoiser = DiffusionUNet(image_size=64, base=32, heads=2)
    with pytest.raises(ValueError, match="does not fit") as raised:
        import_denoiser("ddad", tmp_path / "published.pt", denoiser)
    message = str(raised.value)
    assert "strange.weight" in message
    assert "unet.conv_out.bias" in message
    assert "unet.conv_norm_out.bias (7,)" in message


def test_a_checkpoint_of_other_settings_is_explained(tmp_path: Path):
    weights = authors_weights("d3ad")
    torch.save(weights, tmp_path / "published.pt")
    with pytest.raises(ValueError, match=r"down\.1\.1\.to_qkv\.weight"):
        import_denoiser("ddad", tmp_path / "published.pt", DiffusionUNet(64, base=32, heads=4))
    with pytest.raises(ValueError, match="not a ContextUNet"):
        import_denoiser("ddad", tmp_path / "published.pt", ContextUNet(2, base=32, heads=4))
    with pytest.raises(ValueError, match="of deco"):
        denoiser_for("deco", weights)


def test_files_that_are_not_weights_are_refused_by_name(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_checkpoint(tmp_path / "nowhere.pt")
    torch.save({"model": {}, "where": Path("here")}, tmp_path / "objects.pt")
    with pytest.raises(ValueError, match=r"objects\.pt.*Path.*save only the state dict"):
        read_checkpoint(tmp_path / "objects.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"text\.pt"):
        read_checkpoint(tmp_path / "text.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list\.pt.*state dict"):
        read_checkpoint(tmp_path / "list.pt")


def test_the_published_class_ids_name_each_category_once():
    assert set(DECO_CATEGORIES[15]) == set(MVTecAD.published) and DECO_CATEGORIES[15][8] == "cable"
    assert set(DECO_CATEGORIES[12]) == set(VisA.published) and DECO_CATEGORIES[12][3] == "macaroni2"


def import_deco(folder: Path, classes: int, *more: str) -> list[str]:
    """Categories in the checkpoint that the command makes of a file of so many classes."""
    state = authors_weights("deco")
    embedding = "cond_stage_model.embedding.weight"
    state[embedding] = torch.zeros(classes, state[embedding].shape[1])
    torch.save({"model": state}, folder / "published.pt")
    paths = [f"--checkpoint={folder / 'published.pt'}", f"--output={folder / 'ours.ckpt'}"]
    main(["import", "--method=deco", *paths, *more])
    return torch.load(folder / "ours.ckpt", weights_only=True)["categories"]


def test_classes_keep_the_names_they_were_trained_with(tmp_path: Path, caplog):
    for classes, categories in DECO_CATEGORIES.items():
        assert import_deco(tmp_path, classes) == list(categories)
    assert import_deco(tmp_path, 3, "--categories", "b", "a", "c") == ["b", "a", "c"]
    assert "alphabetical" not in caplog.text
    assert import_deco(tmp_path, 3) == []
    assert "alphabetical order" in caplog.text
    with pytest.raises(SystemExit, match=r"--categories names 2, the network has 3 classes"):
        import_deco(tmp_path, 3, "--categories", "b", "a")


def test_the_command_writes_a_checkpoint_that_a_detector_starts_from(tmp_path: Path):
    torch.save(authors_weights("ddad"), tmp_path / "published.pt")
    paths = [f"--checkpoint={tmp_path / 'published.pt'}", f"--output={tmp_path / 'runs/ours.ckpt'}"]
    main(["import", "--method=ddad", *paths])
    expected = authors_denoiser("ddad")
    denoiser = DiffusionUNet(64, base=32, heads=2)
    detector = DDAD(denoiser, torch.nn.Identity())
    load_weights(detector, tmp_path / "runs/ours.ckpt")
    for key, value in denoiser.state_dict().items():
        assert torch.equal(value, expected.state_dict()[key]), key


def test_the_command_names_a_truncated_or_wrong_file(tmp_path: Path):
    torch.save({"a": torch.zeros(50_000), "b": torch.zeros(3)}, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    output = f"--output={tmp_path / 'ours.ckpt'}"
    for length in range(1000, len(whole), len(whole) // 7):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        with pytest.raises(SystemExit, match=r"cut\.pt"):
            main(["import", "--method=ddad", f"--checkpoint={tmp_path / 'cut.pt'}", output])
    with pytest.raises(SystemExit, match=r"whole\.pt.*key 'down\.0.*missing, there are \['a', 'b'"):
        main(["import", "--method=ddad", f"--checkpoint={tmp_path / 'whole.pt'}", output])


def test_the_command_explains_a_missing_file(tmp_path: Path):
    paths = [f"--checkpoint={tmp_path / 'absent.pt'}", f"--output={tmp_path / 'ours.ckpt'}"]
    with pytest.raises(SystemExit, match=r"no checkpoint .*absent\.pt"):
        main(["import", "--method=ddad", *paths])
