# Engines and the stream on an x86 box with an NVIDIA GPU. In the checkout:
#   docker build --file docker/gpu.Dockerfile --tag mambapro:gpu .
FROM nvidia/cuda:12.6.3-devel-ubuntu24.04
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
       cmake g++ libgl1 libglib2.0-0 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --groups video mambapro
WORKDIR /opt/mambapro
RUN python3 -m venv /opt/venv
# pycuda is linked against the driver's library; an image has only a stub of it.
ENV PATH=/opt/venv/bin:/usr/local/cuda/bin:$PATH LIBRARY_PATH=/usr/local/cuda/lib64/stubs
COPY . .
RUN pip install --no-cache-dir --editable '.[runtime]' \
       onnx==1.23.2 pycuda==2026.1 tensorrt-cu12==10.13.0.35 \
    && cmake --preset cuda -DPython3_EXECUTABLE=/opt/venv/bin/python \
       -DMAMBAPRO_BUILD_TENSORRT=ON -DMAMBAPRO_BUILD_TORCH=OFF -DMAMBAPRO_BUILD_TESTS=OFF \
    && cmake --build --preset cuda --parallel \
    && mkdir -p runs data && chown 10001 runs data
USER 10001
VOLUME ["/opt/mambapro/runs", "/opt/mambapro/data"]
ENTRYPOINT ["python3"]
CMD ["-m", "mambapro.check"]
