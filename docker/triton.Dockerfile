# NVIDIA's Triton with the repository that `cassava export-triton` wrote:
#   docker build --file docker/triton.Dockerfile --build-context served=outputs/triton docker
# The release has to be one whose driver the host has: https://docs.nvidia.com/deeplearning/frameworks/support-matrix
ARG TRITON_RELEASE=25.12

# Nothing by itself: the build context of this name takes its place.
FROM scratch AS served

FROM nvcr.io/nvidia/tritonserver:${TRITON_RELEASE}-py3
COPY --from=served requirements.txt /served/
RUN pip install --no-cache-dir --requirement /served/requirements.txt
COPY --from=served --chown=triton-server:triton-server . /served
# triton-server
USER 1000
WORKDIR /served
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
# TensorRT engines fit one kind of GPU: they are built where they run, once for a container.
CMD ["sh", "-c", "if [ -f build_engines.sh ]; then sh build_engines.sh; fi; exec tritonserver --model-repository=/served/models"]
