# Engines and the stream on a Jetson Orin. On the Jetson, in the checkout; JetPack's packages come
# from where the device itself gets them:
#   docker build --file docker/jetson.Dockerfile --build-context apt=/etc/apt --tag mambapro:jetson .
# For JetPack 7.2 add: --build-arg UBUNTU=24.04
ARG UBUNTU=22.04
FROM ubuntu:${UBUNTU}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# hadolint ignore=DL3022
COPY --from=apt trusted.gpg.d /etc/apt/trusted.gpg.d
# hadolint ignore=DL3022
COPY --from=apt sources.list.d/nvidia-l4t-apt-source.list /etc/apt/sources.list.d/
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
       g++ libgl1 libglib2.0-0 nvidia-cuda-dev nvidia-tensorrt-dev python3-dev \
       python3-libnvinfer python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --groups video mambapro
WORKDIR /opt/mambapro
# TensorRT's Python package is the system's.
RUN python3 -m venv --system-site-packages /opt/venv
ENV PATH=/opt/venv/bin:/usr/local/cuda/bin:$PATH LIBRARY_PATH=/usr/local/cuda/lib64/stubs
COPY . .
# Which versions there are depends on JetPack's Python. Ubuntu 22.04's CMake knows no presets of ours.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir 'cmake>=3.23' onnx pycuda --editable '.[runtime]' \
    && cmake --preset jetson-orin -DPython3_EXECUTABLE=/opt/venv/bin/python \
       -DMAMBAPRO_BUILD_TORCH=OFF -DMAMBAPRO_BUILD_TESTS=OFF \
    && cmake --build --preset jetson-orin --parallel \
    && mkdir -p runs data && chown 10001 runs data
USER 10001
VOLUME ["/opt/mambapro/runs", "/opt/mambapro/data"]
ENTRYPOINT ["python3"]
CMD ["-m", "mambapro.check"]
