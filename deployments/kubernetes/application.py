"""`serveConfigV2`: the application that the manifests would deploy, read by Ray's own schema and
built, and whether it fits the pods around it: ports, files, environment, store, room."""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deployments.config import EMBEDDED, AppConfig
from deployments.configuration.file import ServeFile, UnsoundFileError
from deployments.kubernetes.manifest import Manifest, dotted
from deployments.kubernetes.references import PodTemplate, World, pod_templates
from fairness.store.address import parse

AT = ("spec", "serveConfigV2")
MARGIN_S = 60  # by which the old cluster outlives its longest stream
ENVIRONMENT = Path(__file__).parents[1] / "serve.env"


def problems(manifest: Manifest, world: World, overlay: Path, build: bool = True) -> Iterator[str]:
    """What is wrong with the application of a RayService. build: make it, too, which imports vLLM
    (ten seconds)."""
    text = manifest.spec.get("serveConfigV2", "")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "serve.yaml"
        path.write_text(text, encoding="utf-8")
        shown = overlay / "serve.yaml"
        try:
            file = ServeFile.read(path)
            found = file.check()
            config = None if found else file.config()
        except UnsoundFileError as error:
            found, config = list(error.lines), None
    for line in found:
        yield line.replace(str(path), f"{shown}: {manifest.kind}/{manifest.name}: {'.'.join(AT)}")
    if config is None:
        return
    of_file = dataclasses.replace(manifest, file=str(shown))
    for what in _of_pods(of_file, file.content, config, world):
        yield of_file.problem(AT, what)
    yield from _of_environment(manifest, world)
    if build:
        yield from _of_room(of_file, config)


def _of_pods(
    manifest: Manifest, content: Mapping[str, Any], config: AppConfig, world: World
) -> Iterator[str]:
    """Where what the configuration says and what the pods have must agree."""
    http = content.get("http_options") or {}
    pods = pod_templates([manifest])
    workers = [pod for pod in pods if "workerGroupSpecs" in pod.path]
    routers = [pod for pod in pods if pod.labels.get("app.kubernetes.io/component") == "router"]
    if http.get("host") != "0.0.0.0":
        yield "http_options.host should be 0.0.0.0, or nobody outside the pod reaches it"
    if any(pod.ports.get("serve") != http.get("port") for pod in pods):
        yield f"http_options.port: no port `serve` of that number, {http.get('port')}, in every pod"
    if config.admin.port is None:
        yield "admin.port should be given: the admin API does not belong at the ingress"
    elif any(pod.ports.get("admin") != config.admin.port for pod in routers):
        yield f"admin.port: no port `admin` of that number, {config.admin.port}, in router pods"
    passwords = (config.store.password_file, config.store.sentinel_password_file)
    for path, readers in (
        *((path, routers) for path in config.live_files),
        *((path, workers) for path in passwords if path),
    ):
        for pod in readers:
            if not _is_mounted(path, pod, world):
                yield f"{path} is in no volume of the pods at {dotted(pod.path)}"
    yield from _of_store(manifest, config, world)
    longest = max(pool.drain_s for pool in config.pools)
    delay = manifest.spec.get("rayClusterDeletionDelaySeconds", 60)
    if delay < longest + MARGIN_S:
        yield (
            f"drain_s is {longest:.0f}, but rayClusterDeletionDelaySeconds {delay}: an upgrade "
            f"would cut streams; give {longest + MARGIN_S:.0f}"
        )


def _of_store(manifest: Manifest, config: AppConfig, world: World) -> Iterator[str]:
    url = config.store.url
    if url == EMBEDDED:
        yield "store.url should name a server: the embedded store is for one machine"
        return
    address = parse(url)
    for host, port in address.hosts:
        if "." not in host and port not in world.services.get(host, ()):
            yield f"store.url: no Service {host} has a port {port}"
    options = manifest.spec["rayClusterConfig"].get("gcsFaultToleranceOptions") or {}
    if options.get("redisAddress"):
        ours = {host for host, _ in address.hosts}
        if {host for host, _ in parse(options["redisAddress"]).hosts} & ours:
            yield "store.url: Ray's control plane has this store, too; keep them apart"


def _is_mounted(path: str, pod: PodTemplate, world: World) -> bool:
    """Is there a volume with this very file?"""
    folder, _, key = path.rpartition("/")
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes") or ()}
    for mount in pod.containers[0][1].get("volumeMounts") or ():
        if mount["mountPath"].rstrip("/") == folder:
            volume = volumes.get(mount["name"], {})
            secret = world.secrets.get(volume.get("secret", {}).get("secretName"), ())
            config_map = world.config_maps.get(volume.get("configMap", {}).get("name"), ())
            return key in secret or key in config_map
    return False


def _of_environment(manifest: Manifest, world: World) -> Iterator[str]:
    """Every Ray container has what serve.env says, and does not say otherwise."""
    lines = ENVIRONMENT.read_text(encoding="utf-8").splitlines()
    names = {line.partition("=")[0] for line in lines if line and not line.startswith("#")}
    for pod in pod_templates([manifest]):
        path, container = pod.containers[0]
        maps = [
            source.get("configMapRef", {}).get("name") for source in container.get("envFrom", ())
        ]
        given = {name for config_map in maps for name in world.config_maps.get(config_map, ())}
        if names - given:
            what = f"lacks {', '.join(sorted(names - given))} of deployments/serve.env"
            yield manifest.problem((*path, "envFrom"), what)
        for number, variable in enumerate(container.get("env") or ()):
            if variable["name"] in names:
                what = f"{variable['name']} is deployments/serve.env's to say"
                yield manifest.problem((*path, "env", number), what)


def _of_room(manifest: Manifest, config: AppConfig) -> Iterator[str]:
    """Builds the application, as Serve would, and looks for a place for each of its actors."""
    from deployments.app import build

    groups = manifest.spec["rayClusterConfig"].get("workerGroupSpecs") or ()
    try:
        router = build(config)._bound_deployment
    except Exception as error:  # whatever Ray or vLLM raise: it is shown
        yield manifest.problem(AT, f"the application can't be built: {error}")
        return
    replicas = [bound._bound_deployment for bound in router.init_args[2:]]
    for deployment in (router, *replicas):
        options = deployment.ray_actor_options or {}
        bundles = deployment._replica_config.placement_group_bundles or [
            {"CPU": options.get("num_cpus", 0), "GPU": options.get("num_gpus", 0)}
        ]
        selector = options.get("label_selector") or {}
        each = Counter(tuple(sorted(bundle.items())) for bundle in bundles)
        for bundle, number in ((dict(items), number) for items, number in each.items()):
            wanted = number * (deployment.num_replicas or 1)
            room = sum(_copies(bundle, selector, group) for group in groups)
            if room < wanted:
                where = f" on nodes {selector}" if selector else ""
                what = (
                    f"{deployment.name} wants {wanted} x {_shown(bundle)}{where}; "
                    f"the worker groups have room for {room} at most"
                )
                yield manifest.problem(AT, what)


def _copies(
    bundle: Mapping[str, float], selector: Mapping[str, str], group: Mapping[str, Any]
) -> int:
    """How many times a group can hold a bundle, scaled up."""
    labels = group.get("labels") or {}
    if any(labels.get(name) != value for name, value in selector.items()):
        return 0
    params = group.get("rayStartParams") or {}
    limits = group["template"]["spec"]["containers"][0].get("resources", {}).get("limits") or {}
    has = {
        "CPU": float(params.get("num-cpus", limits.get("cpu", 0))),
        "GPU": float(params.get("num-gpus", limits.get("nvidia.com/gpu", 0))),
    }
    wanted = {name: value for name, value in bundle.items() if value}
    each = min((int(has.get(name, 0) / value) for name, value in wanted.items()), default=1)
    return each * int(group.get("maxReplicas", 0))


def _shown(bundle: Mapping[str, float]) -> str:
    return ", ".join(f"{value:g} {name}" for name, value in bundle.items() if value)


def rayservices(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Those that have an application."""
    return [manifest for manifest in manifests if manifest.kind == "RayService"]
