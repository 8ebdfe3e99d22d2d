# The service without the embedded server: give it a MongoDB by JOBQUEUE_MONGODB_URI.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY jobqueue jobqueue
RUN python -m venv /opt/jobqueue \
    && /opt/jobqueue/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:3.13-slim
ENV PATH=/opt/jobqueue/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    JOBQUEUE_HOST=0.0.0.0 \
    JOBQUEUE_PORT=8080
COPY --from=build /opt/jobqueue /opt/jobqueue
RUN useradd --system --uid 10001 --no-create-home jobqueue
USER jobqueue
# Tasks are looked for here: mount or copy your modules, and name them with --tasks.
WORKDIR /app
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD \
    ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"JOBQUEUE_PORT\"]}/livez', timeout=4)"]
ENTRYPOINT ["jobqueue"]
CMD ["api"]
