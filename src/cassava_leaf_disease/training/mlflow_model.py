"""The code that MLflow keeps beside a logged checkpoint: photos in, probabilities out, nothing pickled.

MLflow runs this file when it loads the model ("models from code"), with this package installed.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from cassava_leaf_disease.domain import CLASS_NAMES

IMAGE_COLUMN = "image"


class CassavaModel(PythonModel):
    """A table with JPEG or PNG files as bytes in the column `image` to a table of class probabilities."""

    def load_context(self, context: Any) -> None:  # noqa: ANN401
        """Loads the checkpoint that was logged with the model."""
        from cassava_leaf_disease.inference.discover import FoundModel
        from cassava_leaf_disease.inference.predictor import load_predictor

        self._predictor = load_predictor(FoundModel(Path(context.artifacts["checkpoint"]), "explicit"), "auto")

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ANN401
        """One row of probabilities, in the order of the classes, for each photo."""
        answers = [
            self._predictor.predict_bytes(bytes(data), name=f"row {row}").probabilities
            for row, data in enumerate(model_input[IMAGE_COLUMN])
        ]
        return pd.DataFrame(answers, columns=list(CLASS_NAMES))


set_model(CassavaModel())
