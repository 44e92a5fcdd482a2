"""`python -m cassava_leaf_disease.training.worker FOLDER`: what a child process runs (see `children`)."""

import json
import os
import sys
import threading
import traceback
from pathlib import Path

from cassava_leaf_disease.errors import CassavaError, OtherRankError
from cassava_leaf_disease.log import configure_logging
from cassava_leaf_disease.process import collect_rarely, imports_only, leave
from cassava_leaf_disease.ranks import launched_rank
from cassava_leaf_disease.storage.files import write_json
from cassava_leaf_disease.training.children import ANSWER_FILE, ERROR_FILE, TASK_FILE, TRACEBACK_FILE, Task

EXIT_INTERRUPTED = 130
_STDIN = 0


def main() -> int:
    """Trains as the task in the folder says, and leaves the answer, the error or the traceback there."""
    folder = Path(sys.argv[1])
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        configure_logging(rank=launched_rank())
        run_task(folder)
    except OtherRankError as error:
        return error.exit_code
    except CassavaError as error:
        leave_error(folder, type(error), str(error))
        return error.exit_code
    except OSError as error:
        leave_error(folder, OSError, error.errno, error.strerror, error.filename)
        return 1
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the one into the other
        return EXIT_INTERRUPTED
    except Exception:  # noqa: BLE001  (a door: the last place to say anything)
        (folder / TRACEBACK_FILE).write_text(traceback.format_exc(), encoding="utf-8")
        return 1
    return 0


def run_task(folder: Path) -> None:
    """Trains or distils, and writes what came of it."""
    with imports_only():
        from cassava_leaf_disease.training.distillation import distill_into
        from cassava_leaf_disease.training.fit import train

    task = Task.model_validate(json.loads((folder / TASK_FILE).read_bytes()))
    if task.distilled:
        assert task.run_dir is not None  # noqa: S101  folds have folders
        answer = distill_into(task.config, task.run_dir).model_dump(mode="json")
    else:
        answer = train(task.config, task.run_dir).model_dump(mode="json")
    write_json(folder / ANSWER_FILE, answer)


def leave_error(folder: Path, kind: type[Exception], *arguments: object) -> None:
    """Writes what the process that started this one is to raise; call it where the error is caught."""
    told = {"kind": kind.__name__, "arguments": arguments, "traceback": traceback.format_exc()}
    write_json(folder / ERROR_FILE, told)


def end_with_parent() -> None:
    """Waits until the pipe from the process that started this one closes, which its death does; then ends.

    Reads the bare descriptor: a lock on `sys.stdin` would be copied, held, into forked loader processes.
    """
    while os.read(_STDIN, 4096):
        pass
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    collect_rarely()
    leave(main())
