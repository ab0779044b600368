# docker build -t medground-bench .                        CPU
# docker build -t medground-bench:cuda --build-arg DEVICE=cuda .
# PyPI's torch for Linux brings CUDA's libraries along; the host needs NVIDIA's driver and container toolkit.
FROM python:3.11-slim
ARG DEVICE=cpu
ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN case "$DEVICE" in \
      cpu) pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu ;; \
      cuda) pip install torch torchvision ;; \
      *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 1 ;; \
    esac
COPY . /opt/medground-bench
RUN pip install "/opt/medground-bench[all]"
RUN useradd --create-home user
USER user
WORKDIR /work
ENTRYPOINT ["medground-bench"]
CMD ["doctor"]
