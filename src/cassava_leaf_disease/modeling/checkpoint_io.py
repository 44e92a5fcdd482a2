"""How Lightning writes and reads a training's checkpoints; apart from them, since a model answers without Lightning."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.modeling.checkpoint import read_plain, save_atomically

if TYPE_CHECKING:
    from lightning.fabric.utilities.types import _PATH


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's writer, made whole or not at all: a killed run leaves no half-written checkpoint."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: "_PATH", storage_options: Any | None = None) -> None:
        save_atomically(checkpoint, Path(path))

    @override
    def load_checkpoint(
        self, path: "_PATH", map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """What a run goes on from, on the CPU.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        try:
            return read_plain(Path(path))
        except CheckpointError as error:
            raise CheckpointError(f"{error}; to start this run anew, remove the file and type the same again") from None
