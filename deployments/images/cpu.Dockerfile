# Fairlane on CPU, for k8s/overlays/dev-cpu: the locked environment of `make env`, and the wheel. From the
# root of the repository:
#
#   docker build -f deployments/images/cpu.Dockerfile -t fairlane:0.2.0-cpu \
#       --build-arg REVISION=$(git rev-parse HEAD) .
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS environment
RUN python -m venv /opt/fairlane
ENV PATH=/opt/fairlane/bin:$PATH
WORKDIR /src
COPY requirements/cpu.lock requirements/
# The CPU build of torch is on PyTorch's index only; each file is checked by its hash.
RUN pip install --no-cache-dir --no-deps --require-hashes \
    --extra-index-url https://download.pytorch.org/whl/cpu -r requirements/cpu.lock
COPY pyproject.toml README.md LICENSE ./
COPY deployments deployments
COPY fairness fairness
COPY loadtests loadtests
COPY replicas replicas
COPY router router
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${PYTHON_IMAGE}
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="fairlane" \
      org.opencontainers.image.description="Fair sharing of LLM GPUs among clients (vLLM on Ray Serve), CPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# wget: KubeRay's probes. libgomp1, libnuma1: vLLM's kernels. (No compiler: dev-cpu sets enforce_eager.)
# Debian keeps one version of each a release, so they are not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 libnuma1 wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --user-group --create-home --shell /bin/bash ray
COPY --from=environment /opt/fairlane /opt/fairlane
# Ray Serve starts HAProxy by this name; `doctor` fails the build if it does not start.
ENV PATH=/opt/fairlane/bin:$PATH \
    RAY_SERVE_HAPROXY_BINARY_PATH=/opt/fairlane/bin/fairlane-haproxy
USER 1000
WORKDIR /home/ray
RUN fairlane doctor --only software
