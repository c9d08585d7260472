# A server of compiled models, without PyTorch. Build on the kind of processor that will serve: the graph is optimised for it.
#
#   docker build -t nlpmeta .
#   docker run -p 8000:8000 -v "$PWD/models:/models" -v "$PWD/tokens.txt:/run/tokens.txt:ro" nlpmeta
#
# Models are compiled where they were adapted (nlpmeta compile MODEL, NLPMETA_CACHE=...), or in the first stage: put their
# folders into models/ before the build. See docs/guides/serve.md.

FROM python:3.11-slim AS compile
WORKDIR /source
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY nlpmeta nlpmeta
COPY recipes recipes
ENV NLPMETA_CACHE=/cache PIP_NO_CACHE_DIR=1
RUN pip install --constraint requirements.lock --extra-index-url https://download.pytorch.org/whl/cpu '.[offline,fast]'
RUN pip wheel --no-deps --wheel-dir /wheel .
RUN nlpmeta compile
COPY model[s] /models
RUN for model in /models/*/; do if [ -f "$model/nlpmeta.json" ]; then nlpmeta compile "$model"; fi; done \
    && rm -rf /cache/encoders /cache/embeddings

FROM python:3.11-slim
WORKDIR /serve
COPY requirements-serve.txt .
COPY --from=compile /wheel /wheel
RUN pip install --no-cache-dir --no-deps -r requirements-serve.txt /wheel/*.whl && rm -rf /wheel \
    && useradd --system --uid 10001 nlpmeta && mkdir /models && chown nlpmeta /models
COPY --from=compile --chown=nlpmeta /cache /cache
COPY --from=compile --chown=nlpmeta /models* /models/
USER nlpmeta
ENV NLPMETA_CACHE=/cache NLPMETA_DEVICE=cpu OMP_NUM_THREADS=1
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz')"]
ENTRYPOINT ["nlpmeta", "serve", "--models", "/models", "--host", "0.0.0.0", "--device", "cpu"]
CMD ["--token-file", "/run/tokens.txt"]
