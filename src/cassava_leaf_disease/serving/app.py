"""The application: `uvicorn --factory cassava_leaf_disease.serving.app:create_app`."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

from cassava_leaf_disease import __version__
from cassava_leaf_disease.config.environment import warn_of_misspelled
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.allocator import keep_freed_memory
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.errors import CassavaError
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.inference.model_files import check_device
from cassava_leaf_disease.serving import page, replies
from cassava_leaf_disease.serving.admission import Admission
from cassava_leaf_disease.serving.answerers import Answerer, LocalAnswerer
from cassava_leaf_disease.serving.drift_watch import DriftWatch
from cassava_leaf_disease.serving.feedback_desk import FeedbackDesk
from cassava_leaf_disease.serving.feedback_routes import feedback
from cassava_leaf_disease.serving.keeper import ModelKeeper
from cassava_leaf_disease.serving.logs import configure_service_logging
from cassava_leaf_disease.serving.metrics import Metrics
from cassava_leaf_disease.serving.middleware import REQUEST_ID, Surroundings
from cassava_leaf_disease.serving.offline import OfflineOffer
from cassava_leaf_disease.serving.routes import KEY_HEADER, check_key, open_routes, routes, uploads
from cassava_leaf_disease.serving.service import Service, number_of_workers
from cassava_leaf_disease.serving.settings import ServingSettings, with_settings
from cassava_leaf_disease.serving.uploads import UploadMemory

DESCRIPTION = """Photos of cassava leaves in, a trustworthy diagnosis out.

Every refusal is the JSON `{"error": what was seen, "expected": what was expected and can be done}`. A 503 carries
`Retry-After`. Photos are held in memory while they are answered, and nowhere else, but for those that people agree to
give through `/feedback`."""


def create_app() -> FastAPI:
    """The service that the environment describes; a wrong setting ends the process with a line on stderr."""
    try:
        settings = ServingSettings.load()
        configure_service_logging(settings.log_level, settings.log_format)
        metrics = Metrics()
        answerer = build_answerer(settings, with_settings(load_config(), settings), metrics)
        return build_app(settings, answerer, metrics)
    except CassavaError as error:
        sys.stderr.writelines(f"error: {line}\n" for line in str(error).splitlines())
        raise SystemExit(error.exit_code) from None


def build_answerer(settings: ServingSettings, config: AppConfig, metrics: Metrics) -> Answerer:
    """The engine of these settings; `config.infer` says which model. A local one is loaded when the service starts.

    Raises:
        CassavaError: A device that is not there, or a missing library.
    """
    if settings.engine == "triton" and settings.triton_url is not None:
        from cassava_leaf_disease.serving.triton_answerer import TritonAnswerer

        return TritonAnswerer(settings.triton_url, settings.deadline_s, metrics)
    check_device(settings.device, settings.checkpoint_path)
    keep_freed_memory()
    limits = DecodeLimits(settings.max_upload_bytes, settings.max_image_pixels)
    keeper = ModelKeeper(config, available_cpus(), metrics)
    return LocalAnswerer(keeper, limits, number_of_workers(settings), metrics)


def build_app(settings: ServingSettings, answerer: Answerer, metrics: Metrics) -> FastAPI:
    """The service in front of an engine, both of which tell `metrics`.

    Raises:
        ConfigError: There is no model file at the path that phones are to download from.
    """
    warn_of_misspelled(ServingSettings)
    service = Service(
        settings,
        metrics,
        answerer,
        Admission(number_of_workers(settings), settings.queue_size, metrics),
        UploadMemory(settings.max_buffered_bytes, metrics),
        OfflineOffer(settings, answerer),
        FeedbackDesk(settings, metrics),
        DriftWatch(settings, answerer, metrics),
    )
    app = FastAPI(
        title="CassavaVision",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan(service),
        docs_url=None,  # their pages fetch scripts from other hosts
        redoc_url=None,
    )
    app.state.service = service
    keyed = [] if settings.api_key is None else [Depends(check_key)]
    app.include_router(uploads, dependencies=keyed)
    app.include_router(feedback, dependencies=keyed)
    app.include_router(routes, dependencies=keyed)
    app.include_router(open_routes)
    page.install(app, [*uploads.routes, *feedback.routes, *routes.routes, *open_routes.routes])
    replies.install(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=[KEY_HEADER, REQUEST_ID],
            expose_headers=[REQUEST_ID, "Retry-After"],
        )
    app.add_middleware(Surroundings, metrics=metrics)
    return app


def _lifespan(service: Service) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(service.answerer.close)
            stack.push_async_callback(service.feedback.close)
            await service.feedback.start()
            stack.push_async_callback(asyncio.to_thread, service.drift.close)
            service.drift.start()
            if isinstance(service.answerer, LocalAnswerer):
                await stack.enter_async_context(service.answerer.keeper.kept(service.settings.reload_s))
            yield

    return lifespan
