"""``lightning fit | validate | test | predict``: LightningCLI for experiments.

What it adds: `fit` runs all phases of an experiment, a run folder holds everything a run leaves
behind, a checkpoint brings its own configuration, and W&B works without an account. YAML may use
short class names and OmegaConf's ``${...}``, resolved after the command line.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import WandbLogger

from data_modules import AnomalyDataModule
from data_modules.reading.store import digest, file_stamp
from lightning_ad import methods, networks
from lightning_ad.callbacks import Evaluation, Panels, Predictions, Report, Throughput
from lightning_ad.callbacks.objective import Objective
from lightning_ad.callbacks.preemption import end_on_signals
from lightning_ad.callbacks.scoring_forecast import ScoringForecast
from lightning_ad.commands.arguments import OF_A_PHASE, with_files_read, with_own_config
from lightning_ad.commands.experiment_parser import (
    DECIDING,
    Parser,
    add_own_options,
    print_nothing,
)
from lightning_ad.commands.tiles import OPTIONS, add_tile_options, with_tile_size, wrap_in_tiles
from lightning_ad.detector.checkpoint import read_checkpoint
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.processes import is_first_process
from lightning_ad.detector.thresholds import require_decision
from lightning_ad.experiment.experiment import Experiment
from lightning_ad.experiment.origin import of_test
from lightning_ad.experiment.phases import announce
from lightning_ad.experiment.run_folder import RunFolder
from lightning_ad.experiment.time_budget import TimeLimit, duration, process_began
from lightning_ad.experiment.tracking import (
    describe_run,
    finish,
    loggers_of,
    new_run_id,
    remember_run_id,
    wandb_run_id,
)
from lightning_ad.experiment.trainers import Trainers
from lightning_ad.reports.predictions_file import watched_before

for room in (methods, networks):
    for name in room.__all__:
        getattr(room, name)  # imports it, which makes its short name known


LONGEST_NAME = 100
"""Characters of a folder that is named after several categories."""

DEFAULTS = {
    "trainer.log_every_n_steps": 10,
    "trainer.logger": {"class_path": "WandbLogger", "init_args": {"project": "lightning_ad"}},
}


class ExperimentCLI(LightningCLI):
    """LightningCLI for anomaly detectors.

    Args:
        args: the command line.
        checkpoint: content of the checkpoint that it names, where that was read already.
        began: moment (`time.time`) from which ``--time`` counts; now if not given.
    """

    _keep_final = False

    def __init__(
        self,
        args: Sequence[str],
        checkpoint: dict[str, Any] | None = None,
        began: float | None = None,
    ) -> None:
        self.checkpoint: Any = checkpoint
        self.began = began or time.time()
        word = args[0]  # whose parser alone is built, which takes a quarter of a second
        self.subcommands = lambda: {word: LightningCLI.subcommands()[word]}  # type: ignore[method-assign]
        super().__init__(
            AnomalyDetector,
            AnomalyDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={"parser_mode": "omegaconf+"},
            parser_class=Parser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=list(args),
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    # Parsing.

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Let errors stand alone: all options, longer than a screen, would come before them."""
        parser = super().init_parser(**kwargs)
        parser.print_usage = print_nothing  # type: ignore[method-assign]
        return parser

    def setup_parser(self, *args: Any) -> None:
        """Let help begin with what is not Lightning's."""
        super().setup_parser(*args)
        for name, parser in self._subcommand_parsers.items():
            add_own_options(name, parser)
            add_tile_options(parser)
            parser.usage = f"lightning {name} --config FILE [--OPTION VALUE ...]"
            parser._action_groups = sorted(
                parser._action_groups, key=lambda group: "every aspect" in (group.title or "")
            )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder and the callbacks that every run has."""
        parser.add_argument(
            "--run_dir", type=str, default="runs/unnamed", help="folder of checkpoints and results"
        )
        parser.add_argument(
            "--overwrite", type=bool, default=False, help="start again in a used run_dir"
        )
        parser.add_argument(
            "--objective",
            type=bool,
            default=False,
            help="also score synthetic defects on held-out normal images, to choose settings by",
        )
        parser.add_lightning_class_args(Evaluation, "evaluation")
        parser.add_lightning_class_args(Panels, "panels")
        parser.add_lightning_class_args(Predictions, "predictions")
        parser.set_defaults(DEFAULTS)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; a checkpoint's own configuration makes them differ from the command line's."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Spare the reading of a checkpoint for hyperparameters, which ours do not hold."""

    @property
    def settings(self) -> Any:
        """The parsed configuration of the subcommand."""
        return self.config[self.subcommand]

    @property
    def run(self) -> RunFolder:
        """The run folder."""
        return RunFolder(Path(self.settings.run_dir))

    def before_instantiate_classes(self) -> None:
        """Settle what must be known before anything is built."""
        self.settings.data.init_args.seed = self.settings.seed_everything
        wrap_in_tiles(self.settings)
        self._refuse_what_has_no_effect()
        self.settings.run_dir = _folder_of(self.settings.run_dir, self.settings.data)
        if self.settings.ckpt_path:
            self.settings.ckpt_path = str(Path(self.settings.ckpt_path).expanduser())
        if self.subcommand == "fit":
            self.limit = _limit(self.began, self.settings.time)
        if self.subcommand != "fit":
            self._choose_checkpoint()
        if self.subcommand in DECIDING:
            self._settle_decision()
        if self.subcommand == "test":
            self.settings.verbose = False  # Evaluation prints one table
            self._choose_folder()
        if self.subcommand == "predict":
            self.settings.return_predictions = False  # Predictions writes them, memory stays free
        if self.settings.get("watch"):
            self.settings.trainer.enable_progress_bar = False  # it would have no end
        if is_first_process():
            self._prepare_loggers()

    def _refuse_what_has_no_effect(self) -> None:
        """Name the options that Lightning would take and a run has no use for."""
        if self.settings.trainer.default_root_dir is not None:
            raise SystemExit("trainer.default_root_dir has no effect here: use --run_dir")
        if self.settings.weights_only is not None:
            raise SystemExit("--weights_only has no effect here: nothing but weights is ever read")
        if self.settings.get("return_predictions"):
            raise SystemExit("--return_predictions has no effect here: they are files in --run_dir")

    def _settle_decision(self) -> None:
        """A false-alarm rate is the model's own setting, whatever it is typed as."""
        given = self.settings
        require_decision(given.false_alarm_rate, given.threshold, given.smallest_region)
        if given.false_alarm_rate is not None:
            given.model.init_args.false_alarm_rate = given.false_alarm_rate
        given.pop("false_alarm_rate")

    def _choose_checkpoint(self) -> None:
        self.source = Path(self.settings.ckpt_path or self.run.final)
        if not self.source.is_file():
            raise SystemExit(
                f"no checkpoint {self.source}: give --ckpt_path, or the --config or --run_dir of a "
                "finished 'lightning fit'"
            )
        self.checkpoint = self.checkpoint or read_checkpoint(self.source)
        if self.subcommand != "validate" and "config" not in self.checkpoint:
            raise SystemExit(OF_A_PHASE.format(self.source))
        self.settings.ckpt_path = None  # the Experiment takes what was read

    def _choose_folder(self) -> None:
        """Keep the numbers of other settings apart from the run's own."""
        folder = self.run.for_test(self.resolved)
        if folder.path != self.run.path:
            changed = "; ".join(self.run.differences_in_test(self.resolved))
            announce(f"results go to {folder.path}, as the run has other settings: {changed}")
            self.settings.run_dir = self.resolved["run_dir"] = str(folder.path)

    def _prepare_loggers(self) -> None:
        new = self.subcommand == "fit" and self.settings.overwrite
        self.run_id = new_run_id() if new else wandb_run_id(self.run.path)
        loggers = self.settings.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if logger and logger is not True and logger.class_path.endswith("WandbLogger"):
                for name, value in self._description().items():
                    if not logger.init_args.get(name) or name == "save_dir":
                        logger.init_args[name] = value
                # Asked to keep models, keep what a run ends with, not what it resumes from.
                self._keep_final |= bool(logger.init_args.get("log_model"))
                logger.init_args.log_model = False

    def _description(self) -> dict[str, Any]:
        data = self.settings.data
        category = data.init_args.category
        return describe_run(
            self.run.path,
            self.run_id,
            self.settings.model.class_path.split(".")[-1],
            data.class_path.split(".")[-1],
            category if isinstance(category, str) else "+".join(category),
        )

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """The resolved configuration, as `fit` would read it from YAML."""
        settings = self.settings.clone()
        for name in ("config", "overwrite", "ckpt_path", "time", "watch", *OPTIONS):
            settings.pop(name, None)
        for name, usual in (("threshold", None), ("smallest_region", 1)):
            if settings.get(name) == usual:
                settings.pop(name, None)  # fit has no such option
        text = self._parser(self.subcommand).dump(settings, skip_unset=False, skip_validation=True)
        return yaml.safe_load(text)

    # Running.

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer that Lightning's own subcommands use."""
        init = self.config_init[self.subcommand]
        # The clock of Throughput stops before the metrics are updated.
        test = [Throughput(), ScoringForecast(), init.evaluation, init.panels]
        test += [Objective()] if init.objective else []
        test += [Report(init.evaluation)]
        predict = [ScoringForecast(), init.predictions, init.panels, Report()]
        callbacks = {"test": test, "predict": predict}
        self.trainers = Trainers(init.trainer, self.run, init.seed_everything, callbacks)
        return self.trainers(self.subcommand or "fit")

    def after_instantiate_classes(self) -> None:
        """Load the checkpoint that is validated, tested or predicts; only then write anything."""
        self.experiment = Experiment(
            self.model, self.datamodule, self.run, self.trainers, self.resolved
        )
        if self.subcommand == "fit":
            return
        self.experiment.take(self.checkpoint, self.source)
        if self.subcommand in DECIDING:
            self.model.decide_by(
                threshold=self.settings.threshold, smallest_region=self.settings.smallest_region
            )
        if self.subcommand == "predict":
            self.config_init["predict"].predictions.scored_by = self._scored_by()
        if self.settings.get("watch"):
            self.datamodule.watch(watched_before(self.run.path / "predictions"))
        if self.subcommand == "test":
            self.run.require_same_test(self.datamodule.files_hash("test"))
        if self.subcommand != "validate" and is_first_process():
            self.lock = self.run.lock()
            self._remember_run_id()
            if self.subcommand == "test" and not self.run.config.exists():
                self.run.open(self.resolved)

    def _scored_by(self) -> str | None:
        """Stands for checkpoint and settings; None where masks of each image decide as well."""
        region = self.datamodule.region
        if region is not None and region.folder is not None:
            return None
        checkpoint, masks = file_stamp(self.source), region.digest([]) if region else ""
        return digest(json.dumps(of_test(self.resolved), sort_keys=True), *checkpoint, masks)

    def fit(
        self,
        model: AnomalyDetector,
        datamodule: AnomalyDataModule,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Run the whole experiment, the first phase's weights from ``ckpt_path`` if given."""
        start = Path(ckpt_path) if ckpt_path else None
        self.experiment.check(start, self.settings.overwrite)
        if is_first_process():
            self.experiment.open(self.settings.overwrite)
            self._remember_run_id()
        loggers = loggers_of(self.config_init["fit"].trainer.logger)
        for logger in loggers:
            logger.log_hyperparams(self.resolved)
        self.experiment.fit(self.limit, start)
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                finish(logger, self.run.final if self._keep_final else None)

    def _remember_run_id(self) -> None:
        loggers = loggers_of(self.config_init[self.subcommand].trainer.logger)
        if any(isinstance(logger, WandbLogger) for logger in loggers):
            remember_run_id(self.run.path, self.run_id)


def _folder_of(run_dir: str, data: Any) -> str:
    """The run folder, with a name that people can type where it holds a list of categories."""
    category = data.init_args.category
    if isinstance(category, list):
        names = "+".join(category)
        if len(names) > LONGEST_NAME:
            names = f"{category[0]}+{len(category) - 1}_more"
        run_dir = run_dir.replace(str(category), names)
    return str(Path(run_dir).expanduser())


def _limit(began: float, text: str | None) -> TimeLimit:
    try:
        return TimeLimit(began, None if text is None else duration(text))
    except ValueError as error:
        raise SystemExit(f"--time {error}") from error


def main(arguments: list[str]) -> None:
    """Run ``lightning fit``, ``validate``, ``test`` or ``predict``."""
    began = process_began() if arguments == sys.argv[1:] else time.time()
    # In a subcommand's YAML, ${data...} means that subcommand's own data.
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    end_on_signals()
    with tempfile.TemporaryDirectory() as folder:
        arguments = with_tile_size(with_files_read(arguments, Path(folder)))
        ExperimentCLI(*with_own_config(arguments, Path(folder)), began=began)
