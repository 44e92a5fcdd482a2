# The MLflow server of compose.yaml, in the version that the extra `track` pins.
FROM python:3.11-slim-bookworm
RUN pip install --no-cache-dir mlflow==3.17.2 \
    && useradd --system --uid 10001 --create-home mlflow \
    && install --directory --owner=mlflow /mlflow
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
CMD ["mlflow", "server", "--host=0.0.0.0", "--port=8080", "--backend-store-uri=sqlite:////mlflow/mlflow.db", "--artifacts-destination=/mlflow/artifacts"]
