"""A LitServe server as its documentation writes one: python serve_litserve.py MODEL PORT WORKERS (needs litserve)."""

import sys
from pathlib import Path
from typing import Any

import litserve as ls
from fastapi import Request

from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.onnx_engine import OnnxEngine
from cassava_leaf_disease.inference.predictor import Predictor


class LeafApi(ls.LitAPI):  # type: ignore[misc]
    """Bytes in, the predictor's JSON out."""

    def __init__(self, model: Path) -> None:
        super().__init__(api_path="/predict")
        self.model = model

    def setup(self, device: str) -> None:
        """Loads the model in the worker."""
        self.predictor = Predictor(OnnxEngine(self.model, "cpu"), FoundModel(self.model, "explicit"))

    def decode_request(self, request: Request) -> bytes:
        """The upload's bytes; what LitServe hands on for a form is the form."""
        content: bytes = request["file"].file.read()
        return content

    def predict(self, data: bytes) -> Any:  # noqa: ANN401
        """The answer."""
        return self.predictor.predict_bytes(data, name="leaf.jpg")

    def encode_response(self, output: Any) -> dict[str, Any]:  # noqa: ANN401
        """Its JSON."""
        plain: dict[str, Any] = output.model_dump(mode="json")
        return plain


if __name__ == "__main__":
    model, port, workers = sys.argv[1:]
    server = ls.LitServer(LeafApi(Path(model)), accelerator="cpu", workers_per_device=int(workers), timeout=60)
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="error")
