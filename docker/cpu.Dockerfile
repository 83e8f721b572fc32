# The stream on a CPU. In the checkout:
#   docker build --file docker/cpu.Dockerfile --tag mambapro:cpu .
FROM debian:12-slim AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/mambapro
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY . .
# ONNX Runtime's headers are fetched from Debian's archive; see plugins/fetch_headers.py.
RUN pip install --no-cache-dir --constraint constraints.txt --editable '.[runtime]' \
    && cmake -S . -B build -DCMAKE_BUILD_TYPE=Release -DPython3_EXECUTABLE=/opt/venv/bin/python \
       -DMAMBAPRO_BUILD_ONNXRUNTIME=ON -DMAMBAPRO_BUILD_TORCH=OFF -DMAMBAPRO_BUILD_CUDA=OFF \
       -DMAMBAPRO_BUILD_TENSORRT=OFF -DMAMBAPRO_BUILD_TESTS=OFF \
    && cmake --build build --parallel

FROM debian:12-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 libgomp1 python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --groups video mambapro
COPY --from=build /opt/venv /opt/venv
WORKDIR /opt/mambapro
COPY mambapro mambapro
COPY runtime runtime
COPY configs configs
COPY --from=build /opt/mambapro/build/lib build/lib
ENV PATH=/opt/venv/bin:$PATH
RUN mkdir runs data && chown 10001 runs data
USER 10001
VOLUME ["/opt/mambapro/runs", "/opt/mambapro/data"]
ENTRYPOINT ["python3"]
CMD ["runtime/stream.py"]
