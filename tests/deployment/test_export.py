"""An exported file scores as its detector, without it, or it is not written."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from data_modules.reading.formats import ORIENTATION
from data_modules.reading.framing import Framing
from lightning_ad import load_detector
from lightning_ad.cli import main
from lightning_ad.deployment import export as exporting
from lightning_ad.deployment import prepare
from lightning_ad.deployment.card import preprocessing_of
from lightning_ad.deployment.export import Order, export
from lightning_ad.deployment.formats import FORMATS, LACKING
from lightning_ad.deployment.graph import Program, program_of
from lightning_ad.deployment.parity import (
    ParityError,
    inputs_of,
    scored_by_detector,
    scored_by_file,
)
from lightning_ad.deployment.precision import QUANTIZED, reduce
from lightning_ad.deployment.repeated import share_repeated
from lightning_ad.deployment.resizing import INPUT, Resize, difference_of, write_resize
from lightning_ad.maths.diffusion import seeded_noise
from lightning_ad.maths.nearest import bin_of, distance_to_nearest
from tests.fakes import texture, write, write_mtd, write_mvtec
from tests.shrunk import EXPERIMENTS, fit_method

pytestmark = pytest.mark.whole

FEW_STEPS = {
    "DDAD": ["--model.steps=2", "--model.adaptation_epochs=0"],
    "D3AD": ["--model.steps=1", "--model.adaptation_epochs=0"],
    "DeCoDiff": ["--model.steps=2"],
    "TextureDDM": ["--model.steps=1"],  # of two calls
}
"""What a graph unrolls."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, autoencoder):
    """Makes the final checkpoint of a method on tiles, once."""
    folder = tmp_path_factory.mktemp("export")
    write_mtd(folder / "mtd", train=12)

    def checkpoint(method):
        file = folder / method / "final.ckpt"
        if not file.exists():
            few = FEW_STEPS.get(method, [])
            held_out = "--data.val_fraction=0.4"
            main(fit_method(method, folder, folder / method, autoencoder, held_out, *few))
        return file

    return checkpoint


def pixels(size, count=5):
    """Images (count, size, size, 3), no two alike."""
    return np.stack([texture(i, size, size) // (1 + i % 3) for i in range(count)])


@pytest.mark.parametrize("size", [(16, 16), (18, 18), (5, 7), (64, 48)])
def test_noise_of_numpy_is_that_of_torch(size):
    image = texture(0, *size)
    draw = seeded_noise(torch.from_numpy(image.transpose(2, 0, 1) / 127.5 - 1)[None].float())
    expected = torch.cat([draw() for _ in range(3)])
    found = prepare.noise(image, 3)
    assert found.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(30, 70), (90, 41), (100, 100), (20, 20)])
@pytest.mark.parametrize(("seen", "frame"), [(32, 32), ((24, 40), (30, 50))])
def test_the_script_shows_a_photograph_as_the_framing_does(fit, size, seen, frame):
    framing = Framing(seen, frame, (), fit=fit)
    photograph = texture(3, *size)
    expected = framing.shown(np.ascontiguousarray(photograph[..., ::-1]))
    window = framing.window(size) if fit == "pad" else None
    found = prepare.seen(photograph, preprocessing_of(framing, window))
    np.testing.assert_array_equal(found, expected)


def test_the_script_refuses_a_photograph_of_another_shape():
    framing = Framing(32, 32, (), fit="pad")
    described = preprocessing_of(framing, framing.window((30, 60)))
    with pytest.raises(ValueError, match=r"shape is another"):
        prepare.seen(texture(3, 60, 30), described)


SIZES = [(30, 70), (90, 41), (100, 100), (64, 64), (20, 20), (30, 30), (33, 200), (32, 50)]


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("seen", "frame"), [(32, 32), ((24, 40), (30, 50))])
def test_a_graph_resizes_as_opencv_does(fit, size, seen, frame):
    framing, photograph = Framing(seen, frame, (), fit=fit), texture(5, *size)
    found = Resize(framing)(torch.from_numpy(photograph))[0].numpy()
    off = np.abs(found.astype(int) - framing.shown(photograph))
    assert off.max() <= 1
    if all(own >= shown for own, shown in zip(size, framing.frame, strict=True)):
        assert (off > 0).mean() < 0.02  # sums that end in a half, in another order


def test_a_file_resizes_photographs_of_any_size_or_is_refused(tmp_path):
    import onnxruntime

    framing, file = Framing(32, 32, ()), tmp_path / "resize.onnx"
    photographs = [write(tmp_path / f"{i}.png", texture(i, 40 + 9 * i, 64)) for i in range(3)]
    write_resize(framing, file, opset=18)
    assert difference_of(file, framing, photographs).largest <= 1
    run = onnxruntime.InferenceSession(file).run
    assert run(None, {INPUT: texture(0, 500, 70)})[0].shape == (1, 32, 32, 3)
    with pytest.raises(ParityError, match=r"resize.onnx is not written"):
        difference_of(file, Framing(32, 40, ()), photographs)


class Steps(torch.nn.Module):
    """A sampler of four steps with a network that has weights, a buffer and a time."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.denoiser = Denoiser()
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, image, threshold):
        xt = image.permute(0, 3, 1, 2).float() / 127.5 - 1
        for step in range(4):
            xt = xt - 0.1 * self.denoiser(xt, torch.full((xt.shape[0],), step))
        score = xt.flatten(1).amax(1)
        return xt.square().sum(1), score, score > threshold


class Denoiser(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.narrow = torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.Conv2d(64, 3, 1)
        self.register_buffer("scale", torch.linspace(0, 1, 64))

    def forward(self, xt, t):
        time = (t[:, None] * self.scale)[:, :, None, None]
        return self.narrow(torch.nn.functional.silu(self.wide(xt) + time, inplace=True))


@pytest.mark.parametrize(("kind", "opset"), [("onnx", 18), ("onnx", 20), ("torch", 0)])
def test_what_a_sampler_repeats_is_in_the_file_once(tmp_path, kind, opset):
    import onnx

    images, sampler = pixels(16, 3), Steps().eval().requires_grad_(False)
    inputs = (torch.from_numpy(images), torch.tensor(0.5))
    expected = sampler(*inputs)
    batch = ({0: torch.export.Dim.DYNAMIC}, None)
    form, file = FORMATS[kind], tmp_path / "model"
    functions = share_repeated(sampler, lambda: sampler(*inputs), form.call)
    whole = torch.export.export(sampler, inputs, dynamic_shapes=batch)
    convolutions = [node for node in whole.graph.nodes if "conv" in str(node.target)]
    assert [function.name for function in functions] == ["denoiser"] and not convolutions
    form.write(Program(whole, functions), file, 0.0, opset)
    found = scored_by_file(form.load(file), images, 0.5, 0)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), 1e-4, 1e-4)
    if kind == "onnx":
        initializers = onnx.load(file).graph.initializer
        large = [each.raw_data for each in initializers if len(each.raw_data) > 100]
        assert len(large) == len(set(large)) == 4


@pytest.mark.parametrize("method", ["PatchCore", "SimpleNet", "InvAD"])
def test_padding_is_never_scored(trained, method):
    """The best of the padding is better than all else, were it looked at."""
    detector = load_detector(trained(method))
    side = detector.framing.seen[0]
    images, window = pixels(side), (slice(side // 4, side - side // 4), slice(0, side))
    images[:, : side // 4] = np.random.default_rng(0).integers(0, 256, (side // 4, side, 3))
    whole, _ = scored_by_detector(detector, images, 0, 0.0)
    expected, draws = scored_by_detector(detector, images, 0, 0.0, window)
    assert (expected.score < whole.score).any()
    run = program_of(detector, 0, draws, window).whole.module()
    found = run(torch.from_numpy(images), torch.tensor(0.0))[1].numpy()
    np.testing.assert_allclose(found, expected.score, 0, 1e-4 * np.ptp(whole.score))


@pytest.mark.parametrize("method", EXPERIMENTS)
def test_the_graph_of_every_method_scores_as_its_detector(trained, method):
    detector = load_detector(trained(method))
    images = pixels(detector.framing.seen[0])
    expected, draws = scored_by_detector(detector, images, 0, threshold=0.0)
    assert draws == {"DDAD": 3, "TextureDDM": 2}.get(method, 0)
    run = program_of(detector, 0, draws).whole.module()
    threshold = float(np.median(expected.score))
    for part in (images[:1], images):  # of any length
        inputs = [torch.from_numpy(value) for value in inputs_of(part, threshold, draws).values()]
        anomaly_map, scores, anomalous = (found.numpy() for found in run(*inputs))
        count, span = len(part), float(np.ptp(expected.anomaly_map))
        np.testing.assert_allclose(anomaly_map, expected.anomaly_map[:count], 0, 1e-4 * span)
        span = float(np.ptp(expected.score))
        np.testing.assert_allclose(scores, expected.score[:count], 0, 1e-4 * span)
        np.testing.assert_array_equal(anomalous, scores > np.float32(threshold))


@pytest.mark.parametrize(
    ("method", "category"),
    [("PatchCore", "grid"), ("PatchCore", None), ("D3AD", "grid"), ("FeatureDiffusion", None)],
)
def test_one_of_several_categories_is_settled_or_found_out(tmp_path, autoencoder, method, category):
    data = ["--data=MVTecAD", f"--data.root={write_mvtec(tmp_path / 'mvtec', train=8)}"]
    data += ["--data.category=[bottle,grid]", *FEW_STEPS.get(method, [])]
    data += ["--model.denoiser.categories=2"] if method == "FeatureDiffusion" else []
    main(fit_method(method, tmp_path, tmp_path / "run", autoencoder, *data))
    detector = load_detector(tmp_path / "run/final.ckpt")
    number = -1 if category is None else detector.categories.index(category)
    images = pixels(detector.framing.seen[0])
    expected, draws = scored_by_detector(detector, images, number, 0.0)
    run = program_of(detector, number, draws).whole.module()
    found = run(torch.from_numpy(images), torch.tensor(0.0))[1].numpy()
    np.testing.assert_allclose(found, expected.score, 0, 1e-4 * np.ptp(expected.score))


@pytest.fixture(scope="module")
def exported(trained):
    """A PatchCore as an ONNX file, with all that lies beside it."""
    output = trained("PatchCore").with_name("model.onnx")
    main(["export", f"--ckpt_path={trained('PatchCore')}", f"--output={output}", "--opset=18"])
    return output


def test_the_script_beside_the_file_needs_no_torch(trained, exported, tmp_path):
    photographs = [write(tmp_path / f"{i}.png", texture(i, 40 + i, 50)) for i in range(3)]
    deep = texture(3, 44, 61).astype(np.uint16) * 257 - np.arange(61, dtype=np.uint16)[:, None]
    photographs.append(write(tmp_path / "deep.png", np.maximum(deep, 61)))
    turned = Image.fromarray(texture(4, 30, 70))
    turned.getexif()[ORIENTATION] = 6
    photographs.append(tmp_path / "turned.png")
    turned.save(photographs[-1], exif=turned.getexif())
    code = """
        import runpy, sys
        for name in ("torch", "lightning", "lightning_ad", "data_modules", "PIL"):
            sys.modules[name] = None  # an import of it fails
        sys.argv = sys.argv[1:]
        sys.path.insert(0, sys.argv[0].removesuffix("score.py"))  # as Python does for a script
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    program = "\n".join(line.strip() for line in code.splitlines()).replace(":\nsys", ": sys")
    command = [sys.executable, "-c", program, exported.with_name("score.py"), exported]
    run = subprocess.run([*command, *photographs], check=True, capture_output=True, text=True)
    detector = load_detector(trained("PatchCore"))
    lines = run.stdout.splitlines()
    assert len(lines) == 5
    for line, photograph in zip(lines, photographs, strict=True):
        found = detector.predict(photograph)
        assert f"{photograph}: {found.verdict}, score " in line
        assert float(line.split()[-1]) == pytest.approx(found.score, rel=1e-4)


def test_the_card_says_what_was_exported(trained, exported):
    card = json.loads(exported.with_suffix(".json").read_text())
    detector = load_detector(trained("PatchCore"))
    assert card["method"] == "PatchCore"
    assert card["image_threshold"] == float(detector.calibration["image_threshold"][0])
    assert card["checkpoint"]["fingerprint"]
    assert card["parity"]["largest_map_difference"] <= 1e-4
    assert card["resize"]["file"] == "resize.onnx" and card["resize"]["largest"] <= 1
    assert card["inputs"]["image"] == "uint8 (B, 32, 32, 3), red, green, blue"
    import onnx

    model = onnx.load(exported)
    assert [each.version for each in model.opset_import if not each.domain] == [18]


def test_the_threshold_moves_and_has_a_default(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported)
    image = pixels(32, 2)
    card = json.loads(exported.with_suffix(".json").read_text())
    scores, anomalous = session.run(["score", "anomalous"], {"image": image})
    assert anomalous.tolist() == (scores > np.float32(card["image_threshold"])).tolist()
    middle = np.array(scores.mean(), np.float32)
    (moved,) = session.run(["anomalous"], {"image": image, "threshold": middle})
    assert sorted(moved) == [False, True]


def test_int8_is_for_networks_and_leaves_search_projection_and_blur(exported, tmp_path):
    import onnx

    file = tmp_path / "model.onnx"
    file.write_bytes(exported.read_bytes())
    before = onnx.load(file).graph.node
    products = [node for node in before if node.op_type in QUANTIZED]
    of_network = [node for node in products if node.input[1].startswith("detector.features.")]
    reduce(file, "int8", pixels(32), 0)
    nodes = onnx.load(file).graph.node
    scaled = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    found = [n.name for n in nodes if n.op_type in QUANTIZED and set(n.input[:2]) <= scaled]
    assert sorted(found) == sorted(node.name for node in of_network)
    assert {node.op_type for node in products if node not in of_network} == {"Conv", "Gemm"}
    expected = scored_by_file(FORMATS["onnx"].load(exported), pixels(32), 0.0, 0).score
    score = scored_by_file(FORMATS["onnx"].load(file), pixels(32), 0.0, 0).score
    np.testing.assert_allclose(score, expected, 0, 0.2 * np.ptp(expected))


def test_a_changed_constant_is_refused(trained, tmp_path, monkeypatch):
    written = FORMATS["torch"].write

    def broken(program, path, threshold, opset):
        program.whole.state_dict["detector.calibration.members_0"] *= 1.001
        written(program, path, threshold, opset)

    kind = FORMATS["torch"]
    changed = type(kind)(kind.suffix, kind.packages, broken, kind.load)
    monkeypatch.setitem(exporting.FORMATS, "torch", changed)
    order = Order(trained("PatchCore"), tmp_path / "model.pt2", "torch")
    with pytest.raises(ParityError, match=r"float32 file is not written, it differs .* 0\.0001"):
        export(order)
    assert list(tmp_path.iterdir()) == []


def test_a_program_of_torch_is_written_and_compared(trained, tmp_path):
    parity = export(Order(trained("PatchCore"), tmp_path / "model.pt2", "torch"))
    assert parity.largest_map_difference <= 1e-4
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.json", "model.pt2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 7}, "--opset 7 is not supported: choose 18 to 23"),
        ({"precision": "int8", "format": "torch"}, "--precision int8 is for --format onnx"),
        ({"category": "bottle"}, r"category 'bottle' is none of the detector's, \['mtd'\]"),
        ({"format": "torch"}, "a file of this format ends in .pt2"),
    ],
)
def test_what_cannot_be_exported_is_said_first(trained, tmp_path, options, message):
    order = Order(trained("PatchCore"), tmp_path / "model.onnx", **options)
    if message.startswith("--precision"):
        order = Order(trained("PatchCore"), tmp_path / "model.pt2", **options)
    with pytest.raises(ValueError, match=message):
        export(order)


def test_a_missing_package_names_the_extra(trained, tmp_path, monkeypatch):
    kind = FORMATS["onnx"]
    lacking = type(kind)(kind.suffix, ("no_such_package",), kind.write, kind.load)
    monkeypatch.setitem(exporting.FORMATS, "onnx", lacking)
    with pytest.raises(ValueError, match=r"no_such_package .*pip install 'lightning-ad\[export\]'"):
        export(Order(trained("PatchCore"), tmp_path / "model.onnx"))


def test_a_place_that_cannot_be_written_is_said_before_work(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "load", None)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        export(Order(trained("PatchCore"), tmp_path / "file/model.onnx"))


class Neighbours(torch.nn.Module):
    """What D3AD and DeCo-Diff do that ONNX has no operators for."""

    def __init__(self):
        super().__init__()
        self.register_buffer("bank", torch.rand(12, 50, generator=torch.Generator().manual_seed(0)))
        self.register_buffer("edges", torch.linspace(0, 20, 11, dtype=torch.float64)[None])

    def forward(self, rows):
        distance = distance_to_nearest(rows, self.bank, 3)
        exact = torch.cdist(rows, self.bank, compute_mode="donot_use_mm_for_euclid_dist")
        return distance, bin_of(distance, self.edges.expand(rows.shape[0], -1)), exact


def test_what_onnx_lacks_is_computed_by_what_it_has(tmp_path):
    import onnxruntime

    rows, module = torch.rand(3, 50, generator=torch.Generator().manual_seed(1)), Neighbours()
    batch = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(module, (rows[:2],), dynamic_shapes=batch)
    torch.onnx.export(program.run_decompositions(LACKING), dynamo=True, verbose=False).save(
        tmp_path / "model.onnx"
    )
    found = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"rows": rows.numpy()})
    for one, expected in zip(found, module(rows), strict=True):
        torch.testing.assert_close(torch.from_numpy(one), expected)


def test_a_checkpoint_in_half_precision_is_told_that_its_file_is_not(trained, caplog):
    detector = load_detector(trained("PatchCore"))
    for precision, lines in ("32-true", 0), ("bf16-mixed", 1):
        detector.precision = precision
        caplog.clear()
        exporting._exportable(detector, 0)
        assert len(caplog.messages) == lines and detector.precision == "32-true"
    assert "the checkpoint scores in bf16-mixed, the file in float32" in caplog.text
