"""That DeCo-Diff's published protocol differs from the default, and in what."""

from types import SimpleNamespace

import pytest
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup

from lightning_ad.methods import DeCoDiff
from lightning_ad.published import DeCoDiffAsPublished
from tests.methods.tiny import images
from tests.methods.tiny_latent import TinyLatents, tiny_context_unet


def test_published_score_depends_on_the_class_somebody_told():
    network = tiny_context_unet(null_class=True)
    default = DeCoDiff(TinyLatents(), network, class_mode="null")
    published = DeCoDiffAsPublished(TinyLatents(), network)
    scores = []
    with torch.no_grad():
        for detector in (default, published):
            told = (torch.tensor([category]) for category in (0, 1))
            scores.append([detector.detect(images(1), category).score for category in told])
    assert scores[0][0] == scores[0][1]
    assert scores[1][0] != scores[1][1]
    assert published.protocol == "as published (class: given)" != default.protocol


def test_published_network_is_never_shown_an_image_without_its_class():
    detector = DeCoDiffAsPublished(TinyLatents(), tiny_context_unet(null_class=True))
    seen = []
    detector.deviation_loss = lambda z, t, noise, mask, category: seen.append(category)
    detector.latent_loss(torch.zeros(200, 4, 2, 2), torch.ones(200, dtype=torch.long))
    assert set(seen[0].tolist()) == {1}


@pytest.mark.parametrize("epochs", [800, 100])
def test_published_rate_changes_by_epoch_as_the_authors(epochs):
    detector = DeCoDiffAsPublished(TinyLatents(), tiny_context_unet())
    detector._trainer = SimpleNamespace(max_epochs=epochs, estimated_stepping_batches=14 * epochs)
    configured = detector.configure_optimizers()
    schedule = configured["lr_scheduler"]
    assert schedule["interval"] == "epoch"
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1e-4)
    theirs = get_cosine_schedule_with_warmup(optimizer, 10, round(1.5 * epochs))
    rates = []
    for _ in range(epochs):
        rates.append(schedule["scheduler"].get_last_lr()[0])
        assert rates[-1] == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        for steps in ((configured["optimizer"], schedule["scheduler"]), (optimizer, theirs)):
            for one in steps:
                one.step()
    assert rates[0] == 0 and rates[10] == 1e-4
