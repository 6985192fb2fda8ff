"""What every method promises: exact resume in each phase, frozen parts, a checkpoint that suffices,
scores that neighbours do not touch.

That processes agree is tested in test_processes.
"""

import csv
import shutil

import pytest
import torch

from lightning_ad import load_detector
from lightning_ad.cli import main
from lightning_ad.detector.detector import AnomalyDetector
from tests.checkpoints import assert_same_weights, stopped_in_second_epoch
from tests.fakes import texture, write, write_mtd, write_mvtec
from tests.shrunk import EXPERIMENTS, FEATURES, QUIET, fit_method

pytestmark = pytest.mark.whole

UNTRAINED = ("PaDiM", "PatchCore")
BASELINES = {
    ("SimpleNet", "train"): {"adaptor", "discriminator"},
    ("DRAEM", "train"): {"reconstruction", "segmentation"},
}
ADAPTED = {("DDAD", "adapt"): {"features"}, ("D3AD", "adapt"): {"features"}}
DENOISED = [m for m in EXPERIMENTS if m not in UNTRAINED and (m, "train") not in BASELINES]
TRAINED = {(method, "denoise"): {"denoiser"} for method in DENOISED} | BASELINES | ADAPTED
"""The parts that train in each phase of each method."""
PHASES = list(TRAINED)
TWO_EPOCHS = "--trainer.max_epochs=2"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, autoencoder):
    """A folder in which every method was trained on tiles without interruption."""
    folder = tmp_path_factory.mktemp("contracts")
    write_mtd(folder / "mtd")
    moved = {}

    def remember(self):
        self.at_start = {name: value.clone() for name, value in self.state_dict().items()}

    def compare(self):
        changed = {
            name.split(".")[0]
            for name, value in self.state_dict().items()
            if not torch.equal(value, self.at_start[name])
        }
        moved[type(self).__name__, self.phase] = changed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnomalyDetector, "on_train_start", remember)
        patch.setattr(AnomalyDetector, "on_train_end", compare)
        for method in EXPERIMENTS:
            main(arguments(method, folder, folder / method, autoencoder))
    return folder, moved


def arguments(method, folder, run, autoencoder):
    adapting = ["--model.adaptation_epochs=2"] if (method, "adapt") in PHASES else []
    return fit_method(method, folder, run, autoencoder, TWO_EPOCHS, *adapting)


@pytest.mark.parametrize(("method", "phase"), PHASES)
def test_only_what_a_phase_trains_moves(finished, method, phase):
    assert finished[1][method, phase] == TRAINED[method, phase]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("method", "phase"), PHASES)
def test_a_stopped_run_ends_with_the_weights_of_an_uninterrupted_one(
    finished, tmp_path, autoencoder, method, phase, workers
):
    folder, run = finished[0], tmp_path / "run"
    command = [*arguments(method, folder, run, autoencoder), f"--data.num_workers={workers}"]
    with stopped_in_second_epoch(phase):
        main(command)
    assert (run / f"resume/{phase}.ckpt").exists()
    main(command)
    assert_same_weights(folder / method / "final.ckpt", run / "final.ckpt")
    assert (run / "metrics.json").exists()


@pytest.mark.parametrize("method", [m for m in EXPERIMENTS if m not in UNTRAINED])
def test_a_run_starts_from_what_another_trained(finished, tmp_path, autoencoder, method):
    folder, run = finished[0], tmp_path / "run"
    trained = folder / method / "final.ckpt"
    main([*arguments(method, folder, run, autoencoder), f"--ckpt_path={trained}"])
    if (method, "adapt") not in PHASES:
        assert_same_weights(trained, run / "final.ckpt")
    assert (run / "metrics.json").exists()


@pytest.fixture
def no_autoencoder(autoencoder):
    """The folder of the autoencoder is away, as on another machine."""
    away = autoencoder.rename(autoencoder.with_suffix(".away"))
    yield
    away.rename(autoencoder)


@pytest.mark.parametrize("method", EXPERIMENTS)
def test_a_final_checkpoint_alone_scores_a_folder_of_images(
    finished, tmp_path, no_autoencoder, method
):
    shutil.copy(finished[0] / method / "final.ckpt", tmp_path / "moved.ckpt")
    for i in range(3):
        write(tmp_path / f"photos/line {i}/{i}.jpg", texture(i, 30, 40))
    options = ["--data=Folder", f"--data.root={tmp_path / 'photos'}", f"--run_dir={tmp_path}"]
    options.append("--data.eval_batch_size=1")  # as `predict` in Python: batches round differently
    main(["predict", f"--ckpt_path={tmp_path / 'moved.ckpt'}", *options, *QUIET])
    with (tmp_path / "predictions/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert all(float(row["score"]) >= 0 and row["anomalous"] in ("0", "1") for row in rows)
    detector = load_detector(tmp_path / "moved.ckpt")
    for row in rows:
        assert detector.predict(row["path"]).score == pytest.approx(float(row["score"]), abs=1e-6)


def test_the_false_alarm_rate_moves_with_predict(finished, tmp_path):
    write(tmp_path / "photos/0.png", texture(0, 30, 40))
    checkpoint = torch.load(finished[0] / "DDAD/final.ckpt")
    scores = torch.arange(1.0, 100.0)  # as if 99 had been held out
    kept = {"scores": scores, "pixels": scores[:, None], "category": torch.zeros(99).long()}
    checkpoint["state_dict"] |= {f"calibration.normal_{k}": value for k, value in kept.items()}
    torch.save(checkpoint, tmp_path / "many.ckpt")
    for rate, threshold in ((0.01, 99), (0.6, 40)):
        options = [f"--data.root={tmp_path / 'photos'}", f"--run_dir={tmp_path / str(rate)}"]
        options += ["--data=Folder", f"--model.false_alarm_rate={rate}", *QUIET]
        main(["predict", f"--ckpt_path={tmp_path / 'many.ckpt'}", *options])
        with (tmp_path / f"{rate}/predictions/predictions.csv").open() as file:
            assert [float(row["threshold"]) for row in csv.DictReader(file)] == [threshold]


@pytest.mark.parametrize("method", EXPERIMENTS)
def test_an_images_neighbours_do_not_matter(finished, method):
    detector = load_detector(finished[0] / method / "final.ckpt")
    side = detector.framing.image_size
    image = torch.rand(5, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image *= torch.tensor([1, 0.1, 0.7, 1, 0.4]).view(-1, 1, 1, 1)  # D3AD gives each its level
    category, order = torch.tensor([0, 0, -1, -1, 0]), torch.tensor([3, 1, 4, 0, 2])
    with torch.no_grad():
        together = detector.detect(image, category)
        shuffled = detector.detect(image[order], category[order])
        alone = [detector.detect(image[i : i + 1], category[i : i + 1]) for i in range(5)]
    made = [] if together.reconstruction is None else ["reconstruction"]
    for name in ("anomaly_map", "score", *made):
        expected = getattr(together, name)
        one_by_one = torch.cat([getattr(detection, name) for detection in alone])
        rounding = {"rtol": 0, "atol": 2e-3 * float(expected.std())}
        torch.testing.assert_close(one_by_one, expected, **rounding)
        torch.testing.assert_close(getattr(shuffled, name), expected[order], **rounding)
    assert len(together.score.unique()) == 5


@pytest.mark.parametrize("mode", ["predicted", "null"])
def test_a_model_of_several_categories_scores_images_of_none(tmp_path, autoencoder, mode):
    root = write_mvtec(tmp_path / "mvtec")
    data = ["--data=MVTecAD", f"--data.root={root}", "--data.category=[bottle,grid]"]
    classes = ["--model.denoiser.categories=2", f"--model.class_mode={mode}"]
    run = tmp_path / "run"
    features = ["--model.features=FeaturePyramid", *FEATURES] if mode == "predicted" else []
    main(fit_method("DeCoDiff", tmp_path, run, autoencoder, *data, *classes, *features))
    write(tmp_path / "photos/a.png", texture(0, 30, 40))
    photos = ["--data=Folder", f"--data.root={tmp_path / 'photos'}"]
    main(["predict", f"--ckpt_path={run / 'final.ckpt'}", *photos, *QUIET])
    assert len((run / "predictions/predictions.csv").read_text().splitlines()) == 2
    one = ["--data.category=grid", f"--run_dir={tmp_path / 'one'}", *QUIET]
    main(["test", f"--ckpt_path={run / 'final.ckpt'}", *one])
    assert "test/grid/image_auroc" in (tmp_path / "one/metrics.json").read_text()
