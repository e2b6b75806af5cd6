# Fairlane for machines with GPUs: Ray's own image for LLMs (Ray, vLLM, CUDA), what it lacks at locked
# versions, and the wheel. From the root of the repository:
#
#   docker build -f deployments/images/gpu.Dockerfile -t registry.example.org/fairlane:0.2.0-gpu \
#       --build-arg REVISION=$(git rev-parse HEAD) .
#
# By digest, where builds must repeat: --build-arg RAY_IMAGE=rayproject/ray-llm@sha256:...
ARG RAY_IMAGE=rayproject/ray-llm:2.60.0-py312-cu130

FROM ${RAY_IMAGE} AS wheel
WORKDIR /home/ray/fairlane
COPY --chown=1000 requirements/image.lock requirements/
COPY --chown=1000 pyproject.toml README.md LICENSE ./
COPY --chown=1000 deployments deployments
COPY --chown=1000 fairness fairness
COPY --chown=1000 loadtests loadtests
COPY --chown=1000 replicas replicas
COPY --chown=1000 router router
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/image.lock \
    && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheels .

FROM ${RAY_IMAGE}
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="fairlane" \
      org.opencontainers.image.description="Fair sharing of LLM GPUs among clients (vLLM on Ray Serve)" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The image lets its user become root without a password; the pods forbid it, and so does this.
USER 0
RUN sed -i '/NOPASSWD/d' /etc/sudoers
USER 1000
COPY requirements/image.lock /tmp/image.lock
# Ray Serve starts HAProxy by this name. A link: where pip puts programs is the base image's affair.
ENV RAY_SERVE_HAPROXY_BINARY_PATH=/home/ray/fairlane-haproxy
# --no-deps: Ray and vLLM stay as they are. `doctor` fails the build if anything is missing then.
RUN --mount=type=bind,from=wheel,source=/home/ray/fairlane/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps --require-hashes -r /tmp/image.lock \
    && pip install --no-cache-dir --no-deps /wheels/*.whl \
    && ln -s "$(command -v fairlane-haproxy)" "$RAY_SERVE_HAPROXY_BINARY_PATH" \
    && fairlane doctor --only software
WORKDIR /home/ray
