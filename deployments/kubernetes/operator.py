"""What KubeRay's operator refuses, or takes without heeding, though the schema allows it; and what
the restricted Pod Security standard asks of every container.

The operator's own rules are those of `ValidateRayServiceSpec` in KubeRay 1.7; they show up in the
cluster only, as an event.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deployments.kubernetes.manifest import Manifest
from deployments.kubernetes.references import PodTemplate, pod_templates

RAY = "2.60.0"  # as in pyproject.toml
NAME_LENGTH = 47
HEAD_PORTS = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "serve": 8000}
WORKER_PORTS = {"serve": 8000}
CLUSTER = ("spec", "rayClusterConfig")
INCREMENTAL = "NewClusterWithIncrementalUpgrade"
FT_VARIABLES = ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME")


def problems(manifests: Sequence[Manifest]) -> Iterator[str]:
    """What the operator, or the admission of pods, would find wrong."""
    for manifest in manifests:
        if manifest.kind == "RayService":
            yield from _of_service(manifest)
    for pod in pod_templates(manifests):
        yield from _of_security(pod)


def _of_service(manifest: Manifest) -> Iterator[str]:
    if len(manifest.name) > NAME_LENGTH or not re.fullmatch(
        "[a-z]([-a-z0-9]*[a-z0-9])?", manifest.name
    ):
        what = f"a name of at most {NAME_LENGTH} small letters, digits and -"
        yield manifest.problem(("metadata", "name"), what)
    for annotation in manifest.content["metadata"].get("annotations") or {}:
        if annotation in ("ray.io/ft-enabled", "ray.io/external-storage-namespace"):
            what = "is the old way; give gcsFaultToleranceOptions"
            yield manifest.problem(("metadata", "annotations", annotation), what)
    cluster = manifest.spec.get("rayClusterConfig") or {}
    yield from _of_upgrade(manifest, cluster)
    yield from _of_cluster(manifest, cluster)
    head = cluster.get("headGroupSpec") or {}
    if (head.get("headService") or {}).get("metadata", {}).get("name"):
        named = (*CLUSTER, "headGroupSpec", "headService", "metadata", "name")
        yield manifest.problem(named, "is the operator's to choose")
    if (head.get("rayStartParams") or {}).get("num-cpus") != "0":
        at = (*CLUSTER, "headGroupSpec", "rayStartParams", "num-cpus")
        yield manifest.problem(at, 'should be "0": work there takes memory from the control plane')
    for number, group in enumerate(cluster.get("workerGroupSpecs") or ()):
        yield from _of_group(manifest, (*CLUSTER, "workerGroupSpecs", number), group)
    for pod in pod_templates([manifest]):
        yield from _of_ray_pod(pod, HEAD_PORTS if "headGroupSpec" in pod.path else WORKER_PORTS)


def _of_upgrade(manifest: Manifest, cluster: Mapping[str, Any]) -> Iterator[str]:
    strategy = manifest.spec.get("upgradeStrategy") or {}
    at = ("spec", "upgradeStrategy")
    if strategy.get("type", "NewCluster") not in ("NewCluster", INCREMENTAL, "None"):
        yield manifest.problem((*at, "type"), f"takes NewCluster, {INCREMENTAL} or None")
    if strategy.get("type") != INCREMENTAL:
        return
    if not cluster.get("enableInTreeAutoscaling"):
        at_scaling = (*CLUSTER, "enableInTreeAutoscaling")
        yield manifest.problem(at_scaling, f"{INCREMENTAL} needs it")
    options = strategy.get("clusterUpgradeOptions") or {}
    if not options:
        yield manifest.problem((*at, "clusterUpgradeOptions"), f"{INCREMENTAL} needs them")
    for name, lowest, highest in (
        ("maxSurgePercent", 0, 100),
        ("stepSizePercent", 0, 100),
        ("intervalSeconds", 1, 1 << 31),
    ):
        if name in options and not lowest <= options[name] <= highest:
            what = f"should be {lowest} to {highest}"
            yield manifest.problem((*at, "clusterUpgradeOptions", name), what)


def _of_cluster(manifest: Manifest, cluster: Mapping[str, Any]) -> Iterator[str]:
    if cluster.get("rayVersion") != RAY:
        what = f"should be {RAY}, which is what the image has"
        yield manifest.problem((*CLUSTER, "rayVersion"), what)
    if (cluster.get("authOptions") or {}).get("mode") != "token":
        what = "should be token: who reaches Ray's ports can run code"
        yield manifest.problem((*CLUSTER, "authOptions", "mode"), what)
    images = {
        container["image"]: path
        for pod in pod_templates([manifest])
        for path, container in pod.containers
    }
    if len(images) > 1:
        *_, (image, path) = images.items()
        yield manifest.problem((*path, "image"), f"{image}: all groups run one image")
    v2 = (cluster.get("autoscalerOptions") or {}).get("version") == "v2"
    for pod in pod_templates([manifest]):
        if v2 and pod.spec.get("restartPolicy", "Never") != "Never":
            at = (*pod.path, "spec", "restartPolicy")
            yield manifest.problem(at, "autoscaler v2 wants Never, or nothing")


def _of_group(
    manifest: Manifest, at: tuple[str | int, ...], group: Mapping[str, Any]
) -> Iterator[str]:
    lowest, now = group.get("minReplicas", 0), group.get("replicas", 0)
    if not lowest <= now <= group.get("maxReplicas", 1 << 31):
        yield manifest.problem((*at, "replicas"), "should be minReplicas to maxReplicas")
    params = group.get("rayStartParams") or {}
    if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & params.keys():
        yield manifest.problem((*at, "resources"), "and rayStartParams both say it; give one")
    if "labels" in params:
        yield manifest.problem((*at, "rayStartParams", "labels"), "give the group's labels instead")
    if "num-cpus" not in params and "CPU" not in (group.get("resources") or {}):
        what = 'give num-cpus: "N": what Ray may place there'
        yield manifest.problem((*at, "rayStartParams"), what)


def _of_ray_pod(pod: PodTemplate, ports: Mapping[str, int]) -> Iterator[str]:
    if not pod.containers:
        yield pod.manifest.problem((*pod.path, "spec", "containers"), "should have one")
        return
    path, container = pod.containers[0]
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        if probe in container:
            yield pod.manifest.problem((*path, probe), "leave it out: the operator puts in its own")
    for name, number in ports.items():
        if pod.ports.get(name) != number:
            what = f"should have {{name: {name}, containerPort: {number}}}"
            yield pod.manifest.problem((*path, "ports"), what)
    for number, variable in enumerate(container.get("env") or ()):
        if variable["name"] in FT_VARIABLES:
            what = f"{variable['name']}: give gcsFaultToleranceOptions instead"
            yield pod.manifest.problem((*path, "env", number), what)


def _of_security(pod: PodTemplate) -> Iterator[str]:
    """The restricted Pod Security standard, and a read-only root besides."""
    whole = pod.spec.get("securityContext") or {}
    for path, container in pod.containers:
        own = container.get("securityContext") or {}
        at = (*path, "securityContext")
        both = {**whole, **own}
        if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
            yield pod.manifest.problem((*at, "runAsNonRoot"), "should be true")
        if (both.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield pod.manifest.problem((*at, "seccompProfile"), "should be RuntimeDefault")
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield pod.manifest.problem((*at, "allowPrivilegeEscalation"), "should be false")
        capabilities = own.get("capabilities") or {}
        if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
            yield pod.manifest.problem((*at, "capabilities"), "should drop ALL and add none")
        if own.get("readOnlyRootFilesystem") is not True:
            yield pod.manifest.problem((*at, "readOnlyRootFilesystem"), "should be true")
        resources = container.get("resources") or {}
        if "memory" not in (resources.get("limits") or {}) or not resources.get("requests"):
            what = "should have requests and a limit of memory"
            yield pod.manifest.problem((*path, "resources"), what)
        image = str(container.get("image"))
        if not re.search(r"(:(?!latest$)[\w][\w.-]*|@sha256:[0-9a-f]{64})$", image):
            yield pod.manifest.problem((*path, "image"), f"{image} has no version")
