# The MLflow server of docker-compose.yaml, in the version that the extra `track` pins.
FROM python:3.11-slim
RUN pip install --no-cache-dir mlflow==3.17.2 && useradd --create-home mlflow && install -d -o mlflow /mlflow
USER mlflow
EXPOSE 8080
