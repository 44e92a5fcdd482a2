"""`cassava distill`: teachers of a recipe, then students that learn what the teachers say of every batch.

Several networks trained alike answer better together than each alone; a student that learns their common answer for
long enough answers about as well as they do, at the price of one (Beyer et al., 2022).
"""

import logging
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.evaluation.calibrate import ENOUGH_PHOTOS, calibrate
from cassava_leaf_disease.inference.make_ensemble import write_ensemble
from cassava_leaf_disease.paths import ENSEMBLE_FILE, METRICS_FILE, best_checkpoint
from cassava_leaf_disease.storage.files import write_json
from cassava_leaf_disease.training.fit import train
from cassava_leaf_disease.training.launch import refuse_launcher
from cassava_leaf_disease.training.result import TrainResult
from cassava_leaf_disease.training.run_folder import describe_run, open_workflow_dir

logger = logging.getLogger(__name__)


class DistillResult(BaseModel):
    """All runs, and the file with which the answers are had: the student's checkpoint, or the students' ensemble."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    distill_dir: Path
    teachers: list[TrainResult]
    students: list[TrainResult]
    model: Path
    seconds: float


def distill(config: AppConfig) -> DistillResult:
    """Trains `distill.teachers` networks, then `distill.students`; their seeds count up from `train.seed`.

    All learn the same part of the photos, so that what measures the students no teacher has learned. A run that was
    finished before is not trained again, one that was cut off goes on from its last epoch.

    Raises:
        ConfigError: The settings cannot be distilled, or there is nothing to resume.
        CassavaError: What went wrong in a training.
    """
    refuse_launcher("distill")
    check(config)
    return distill_into(config, open_workflow_dir(config, "distill", "distillation", resume=config.distill.resume))


def distill_into(config: AppConfig, folder: Path) -> DistillResult:
    """Trains what `distill` trains, with settings that were checked, in a folder that may hold a part of it.

    Raises:
        CassavaError: What went wrong in a training.
    """
    started = time.perf_counter()
    describe_run(folder, config)
    teachers = [
        run_once(teacher_config(config, number), folder / "teachers" / f"seed_{config.train.seed + number}")
        for number in range(config.distill.teachers)
    ]
    teacher = _as_one(folder / "teachers", teachers)
    students = [
        run_once(student_config(config, number, teacher), folder / "students" / f"seed_{config.train.seed + number}")
        for number in range(config.distill.students)
    ]
    model = _as_one(folder / "students", students)
    if len(students) > 1 and config.train.calibrate and students[0].photos["val"] >= ENOUGH_PHOTOS:
        calibrate(config.changed(infer=config.infer.changed(checkpoint_path=model)))
    result = DistillResult(
        distill_dir=folder,
        teachers=teachers,
        students=students,
        model=model,
        seconds=round(time.perf_counter() - started, 1),
    )
    write_json(folder / METRICS_FILE, result.model_dump(mode="json"))
    return result


def check(config: AppConfig) -> None:
    """Refuses settings that contradict what a distillation does.

    Raises:
        ConfigError: They do.
    """
    settings = config.distill
    if settings.teacher is not None or settings.out_of_fold or settings.tta != "none":
        raise ConfigError(
            f"distill.teacher={settings.teacher} distill.out_of_fold={settings.out_of_fold} distill.tta="
            f"{settings.tta}: a distillation trains its own teachers, which look at each batch once; type "
            "distill.teacher=null distill.out_of_fold=false distill.tta=none, or `cassava train` with that teacher"
        )
    if not config.train.save_checkpoints:
        raise ConfigError("distill needs the teachers' checkpoints; type train.save_checkpoints=true")


def teacher_config(config: AppConfig, number: int) -> AppConfig:
    """The recipe without a teacher, with the teachers' own epochs and label smoothing."""
    settings = config.distill
    epochs = settings.teacher_epochs or config.train.epochs
    smoothing = settings.teacher_label_smoothing
    return config.changed(
        train=config.train.changed(
            seed=config.train.seed + number, epochs=epochs, calibrate=False, fit_gate=False, resume=False
        ),
        loss=config.loss if smoothing is None else config.loss.changed(label_smoothing=smoothing),
    )


def student_config(config: AppConfig, number: int, teacher: Path) -> AppConfig:
    """The recipe with the teacher at hand."""
    return config.changed(
        train=config.train.changed(seed=config.train.seed + number, resume=False),
        distill=config.distill.changed(teacher=teacher, consistent=True),
    )


def run_once(config: AppConfig, folder: Path) -> TrainResult:
    """The training in `folder`, or its result where it was finished before."""
    done = folder / METRICS_FILE
    if done.is_file():
        logger.info("finished before: %s", folder)
        return TrainResult.model_validate_json(done.read_bytes())
    logger.info("training: %s", folder)
    return train(config, folder)


def _as_one(folder: Path, runs: list[TrainResult]) -> Path:
    """The only run's checkpoint, or the ensemble of all."""
    members = [best_checkpoint(run.run_dir) for run in runs]
    if len(members) == 1:
        return members[0]
    return write_ensemble(folder / ENSEMBLE_FILE, members, "logits", "equal").path
