# bullmq-streams in a container, without root: bridge, worker and all other commands.
#   docker build -t bullmq-streams .
# The stage `sample` adds the sample application of the demo.

FROM python:3.11-slim AS build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY streams streams
RUN pip wheel --wheel-dir /wheels . && pip install --no-index --find-links /wheels bullmq-streams

FROM build AS build-sample
RUN pip install bullmq==3.4.4

FROM python:3.11-slim AS base
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin streams
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 10001

FROM base AS sample
COPY --from=build-sample /opt/venv /opt/venv
ENTRYPOINT ["python", "-m", "streams.demo.application"]

FROM base AS runtime
COPY --from=build /opt/venv /opt/venv
ENTRYPOINT ["bullmq-streams"]
CMD ["--help"]
