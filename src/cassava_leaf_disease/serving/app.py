"""The application: `uvicorn --factory cassava_leaf_disease.serving.app:create_app`."""

import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from cassava_leaf_disease import __version__
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.allocator import keep_freed_memory
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.errors import CassavaError
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.inference.predictor import check_device
from cassava_leaf_disease.serving import page, replies
from cassava_leaf_disease.serving.admission import Admission
from cassava_leaf_disease.serving.answerers import LocalAnswerer
from cassava_leaf_disease.serving.keeper import ModelKeeper
from cassava_leaf_disease.serving.logs import configure_service_logging
from cassava_leaf_disease.serving.metrics import Metrics
from cassava_leaf_disease.serving.middleware import REQUEST_ID, Surroundings
from cassava_leaf_disease.serving.routes import KEY_HEADER, open_routes, routes
from cassava_leaf_disease.serving.service import Service, number_of_workers
from cassava_leaf_disease.serving.settings import ServingSettings, load_settings, misspelled, with_settings
from cassava_leaf_disease.serving.uploads import UploadMemory

_log = logging.getLogger(__name__)

DESCRIPTION = """Photos of cassava leaves in, a trustworthy diagnosis out.

Every refusal is the JSON `{"error": what was seen, "expected": what was expected and can be done}`. A 503 carries
`Retry-After`. Photos are held in memory while they are answered, and nowhere else."""


def create_app() -> FastAPI:
    """The service that the environment describes; a wrong setting ends the process with a line on stderr."""
    try:
        settings = load_settings()
        configure_service_logging(settings.log_level, settings.log_format)
        return build_app(settings, with_settings(load_config(), settings))
    except CassavaError as error:
        sys.stderr.writelines(f"error: {line}\n" for line in str(error).splitlines())
        raise SystemExit(error.exit_code) from None


def build_app(settings: ServingSettings, config: AppConfig, keeper: ModelKeeper | None = None) -> FastAPI:
    """The service of these settings; `config.infer` says which model.

    Without a `keeper` that holds one already, the model is loaded while the service starts.

    Raises:
        CassavaError: A device that is not there, or a missing library.
    """
    check_device(settings.device, settings.checkpoint_path)
    for line in misspelled():
        _log.warning("%s", line)
    keep_freed_memory()
    keeper = keeper or build_keeper(config)
    service = _build_service(settings, keeper)
    app = FastAPI(
        title="CassavaVision",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan(service, keeper),
        docs_url=None,  # their pages fetch scripts from other hosts
        redoc_url=None,
    )
    app.state.service = service
    app.include_router(open_routes)
    app.include_router(routes)
    page.install(app)
    replies.install(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=[KEY_HEADER, REQUEST_ID],
            expose_headers=[REQUEST_ID, "Retry-After"],
        )
    app.add_middleware(Surroundings, metrics=service.metrics)
    return app


def build_keeper(config: AppConfig) -> ModelKeeper:
    """What will hold the model."""
    return ModelKeeper(config, available_cpus(), Metrics())


def _build_service(settings: ServingSettings, keeper: ModelKeeper) -> Service:
    workers = number_of_workers(settings)
    limits = DecodeLimits(settings.max_upload_bytes, settings.max_image_pixels)
    return Service(
        settings,
        keeper.metrics,
        LocalAnswerer(keeper, limits, workers, keeper.metrics),
        Admission(workers, settings.queue_size, keeper.metrics),
        UploadMemory(settings.max_buffered_bytes),
    )


def _lifespan(
    service: Service, keeper: ModelKeeper
) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with keeper.kept(service.settings.reload_s):
            yield
        await service.answerer.close()

    return lifespan
