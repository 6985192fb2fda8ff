"""The command line: ``lightning fit | validate | test | predict``.

LightningCLI with four additions: `fit` runs all phases of an experiment, a run folder holds
everything a run leaves behind, a checkpoint brings its own configuration, and W&B works without an
account. YAML may use short class names and OmegaConf's ``${...}``, resolved after the command line.
"""

import copy
import itertools
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

import lightning_ad.methods  # noqa: F401  makes the short names known
from data_modules import AnomalyDataModule
from data_modules.doctor import command as doctor
from lightning_ad.callbacks import Evaluation, Panels, Predictions, Throughput
from lightning_ad.callbacks.objective import Objective
from lightning_ad.callbacks.preemption import EndOnSignals, FirstCheckpoint, end_on_signals
from lightning_ad.callbacks.training_seed import TrainingSeed
from lightning_ad.commands import summarize
from lightning_ad.commands.explain import explain_errors
from lightning_ad.detector.checkpoint import read_checkpoint
from lightning_ad.detector.detector import AnomalyDetector, Phase
from lightning_ad.experiment.phases import announce, run_experiment
from lightning_ad.experiment.run_folder import RunFolder
from lightning_ad.experiment.tracking import describe_run, finish, forget_wandb_run, loggers_of
from lightning_ad.networks import authors_weights as importing

EXPECTED_WARNINGS = (
    ".*module\\(s\\) in eval mode at the start of training.*",  # what a phase freezes
    ".*smaller than the logging interval.*",
    ".*does not have many workers.*",
    ".*instantiate_classes.*",
    ".*Checkpoint directory.*exists and is not empty.*",  # the last epoch, to resume from
    ".*JsonargparseDeprecationWarning.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
)
"""What Lightning warns of and this program means to do, or cannot change."""

SELF_SUFFICIENT = ("seed_everything", "model", "data", "evaluation")
"""Sections of the configuration that a final checkpoint carries."""


class ExperimentCLI(LightningCLI):
    """LightningCLI for anomaly detectors."""

    _keep_final = False

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Name the commands that are not Lightning's own; let errors stand alone."""
        parser = super().init_parser(**kwargs)
        # All options, longer than a screen, would come before what is wrong with one.
        parser.print_usage = _print_nothing  # type: ignore[method-assign]
        parser.epilog = "Other commands: doctor, import, summarize, sweep; each has its own --help."
        return parser

    def __init__(self, args: Sequence[str] | None = None) -> None:
        super().__init__(
            AnomalyDetector,
            AnomalyDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={"parser_mode": "omegaconf+"},
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=list(args) if args is not None else None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    # Parsing.

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
        parser.set_defaults({"data": "SyntheticTextures", "trainer.logger": False})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; a checkpoint's own configuration makes them differ from the command line's."""
        self.config = parser.parse_args(args)

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
        if self.subcommand != "fit":
            self._choose_checkpoint()
        elif self.settings.overwrite:
            forget_wandb_run(self.run.path)
        if self.subcommand == "test":
            self.settings.verbose = False  # Evaluation prints one table
            self._choose_folder()
        if self.subcommand == "predict":
            self.settings.return_predictions = False  # Predictions writes them, memory stays free
        if _is_first_process():
            self._prepare_loggers()

    def _choose_checkpoint(self) -> None:
        path = Path(self.settings.ckpt_path or self.run.final)
        if not path.is_file():
            raise SystemExit(
                f"no checkpoint {path}: give --ckpt_path, or the --config or --run_dir of a "
                "finished 'lightning fit'"
            )
        if self.subcommand != "validate" and "config" not in read_checkpoint(path):
            raise SystemExit(_of_a_phase(path))
        self.settings.ckpt_path = str(path)

    def _choose_folder(self) -> None:
        """Keep the numbers of other settings apart from the run's own."""
        config = self._resolved()
        folder = self.run.for_test(config)
        if folder.path != self.run.path:
            changed = "; ".join(self.run.differences_in_test(config))
            announce(f"results go to {folder.path}, as the run has other settings: {changed}")
            self.settings.run_dir = str(folder.path)
        if not folder.config.exists() and _is_first_process():
            folder.open({**config, "run_dir": str(folder.path)})

    def _prepare_loggers(self) -> None:
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
            self.settings.model.class_path.split(".")[-1],
            data.class_path.split(".")[-1],
            category if isinstance(category, str) else "+".join(category),
        )

    def _resolved(self) -> dict[str, Any]:
        """The resolved configuration, as `fit` would read it from YAML."""
        settings = self.settings.clone()
        for name in ("config", "overwrite", "ckpt_path"):
            settings.pop(name, None)
        text = self._parser(self.subcommand).dump(settings, skip_unset=False, skip_validation=True)
        return yaml.safe_load(text)

    # Running.

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer that Lightning's own subcommands use."""
        return self.make_trainer(self.subcommand or "fit")

    def make_trainer(self, purpose: Phase | str) -> Trainer:
        """A fresh Trainer for a training phase, or to calibrate, test or predict."""
        init = self.config_init[self.subcommand]
        options = {**init.trainer, "default_root_dir": str(self.run.path)}
        callbacks = [*copy.deepcopy(options["callbacks"] or []), EndOnSignals()]
        if isinstance(purpose, Phase):
            callbacks += [
                _last_epoch(self.run, purpose),
                TrainingSeed(self.settings.seed_everything),
                FirstCheckpoint(self.run.unfinished(purpose)),
            ]
            if purpose.epochs is not None:
                options |= {"max_epochs": purpose.epochs, "max_steps": -1}
        elif purpose == "test":
            # The clock stops before the metrics are updated.
            callbacks += [Throughput(), init.evaluation, init.panels]
            callbacks += [Objective()] if self.settings.objective else []
        elif purpose == "predict":
            callbacks += [init.predictions]
        return Trainer(**{**options, "callbacks": callbacks})

    def fit(
        self,
        model: AnomalyDetector,
        datamodule: AnomalyDataModule,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Run the whole experiment, the first phase's weights from ``ckpt_path`` if given."""
        model.match_categories(datamodule.categories, "fit")  # a wrong root costs nothing yet
        model.check_data(datamodule, "fit")
        if _is_first_process():
            if self.settings.overwrite:
                self.run.clear()
            self.run.open(self._resolved())
        own = {key: value for key, value in self._resolved().items() if key in SELF_SUFFICIENT}
        own["trainer"] = {"precision": self.settings.trainer.precision}
        architecture = getattr(getattr(model, "autoencoder", None), "architecture", None)
        if architecture is not None:  # which the checkpoint's reader may have no file to look up in
            own["model"]["init_args"]["autoencoder"]["init_args"]["architecture"] = architecture
        loggers = loggers_of(self.config_init["fit"].trainer.logger)
        for logger in loggers:
            logger.log_hyperparams(self._resolved())
        start = Path(ckpt_path) if ckpt_path else None
        config = yaml.safe_dump(own)
        run_experiment(model, datamodule, self.make_trainer, self.run, config, start)
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                finish(logger, self.run.final if self._keep_final else None)


def _print_nothing(file: Any = None) -> None:
    """Stands for the usage."""


def _is_first_process() -> bool:
    """Whether this is the first process of all nodes, as far as the environment says."""
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]


def _last_epoch(run: RunFolder, phase: Phase) -> ModelCheckpoint:
    """Keep the checkpoint of a phase's last epoch."""
    return ModelCheckpoint(
        run.resume, phase.name, enable_version_counter=False, save_on_train_epoch_end=True
    )


def _values_of(args: list[str], option: str) -> list[str]:
    """What the command line gives for an option, as ``--option value`` or ``--option=value``."""
    apart = [value for name, value in itertools.pairwise(args) if name == option]
    return apart + [a.partition("=")[2] for a in args if a.startswith(f"{option}=")]


def _require_settings(file: Path) -> None:
    """Name a configuration file that holds no settings, which the parser would not."""
    try:
        holds = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise SystemExit(f"{file} is no valid YAML: {error}") from error
    if not isinstance(holds, dict):
        raise SystemExit(f"{file} holds no settings: expected lines such as 'seed_everything: 0'")


def _of_a_phase(path: Path) -> str:
    return (
        f"{path} holds the weights of a phase, without calibration and configuration: give the "
        "final.ckpt that 'lightning fit' ends with"
    )


def _with_checkpoints_own_config(args: list[str], folder: Path) -> list[str]:
    """Put the configuration that a checkpoint holds before arguments that name none."""
    if not args or args[0] not in ("validate", "test", "predict"):
        return args
    if any(re.match(r"(-c|--config|--model)(=|$)", argument) for argument in args):
        return args
    paths = _values_of(args, "--ckpt_path")
    if not paths:
        return args
    checkpoint = read_checkpoint(Path(paths[-1]))
    if "config" not in checkpoint:
        raise SystemExit(_of_a_phase(Path(paths[-1])))
    file = folder / "checkpoint.yaml"
    config = yaml.safe_load(checkpoint["config"])
    data = config["data"]
    sets = {name.split(".")[-1] for name in (data["class_path"], *_values_of(args, "--data"))}
    if len(sets) > 1:
        data["init_args"].pop("root", None)  # another data set lies elsewhere
        if not isinstance(data["init_args"]["category"], str):
            del data["init_args"]["category"]  # a choice among another data set's
    file.write_text(yaml.safe_dump(config))
    run_dir = Path(paths[-1]).resolve().parent
    return [args[0], f"--config={file}", f"--run_dir={run_dir}", *args[1:]]


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line."""
    arguments = list(sys.argv[1:] if args is None else args)
    if args is None:
        explain_errors()
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    os.environ.setdefault("WANDB_QUIET", "true")  # a run ends with its own table
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    if arguments[:1] == ["doctor"]:
        sys.exit(doctor.main(arguments[1:]))
    if arguments[:1] == ["summarize"]:
        return summarize.main(arguments[1:])
    if arguments[:1] == ["sweep"]:
        from lightning_ad.commands import (
            sweep,  # Optuna would make every other start a second slower
        )

        return sweep.main(arguments[1:])
    if arguments[:1] == ["import"]:
        return importing.main(arguments[1:])
    for file in map(Path, _values_of(arguments, "--config") + _values_of(arguments, "-c")):
        if file.is_file():  # else the parser says so
            _require_settings(file)
    # In a subcommand's YAML, ${data...} means that subcommand's own data.
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    end_on_signals()
    with tempfile.TemporaryDirectory() as folder:
        arguments = _with_checkpoints_own_config(arguments, Path(folder))
        ExperimentCLI(arguments)
