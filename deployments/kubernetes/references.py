"""Whatever a manifest names is there: Secrets and ConfigMaps with their keys, volumes, ports, and
pods for every selector.

Not everything is in the manifests. Secrets are made by k8s/secrets.sh, which is asked what it
makes. What a Helm chart adds is read from the values beside the overlay (`valkey-values.yaml`). The
label `fairlane-admin` is given to pods by hand.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deployments.haproxy import METRICS_HOST
from deployments.kubernetes.manifest import Manifest

Path_ = tuple[str | int, ...]
BY_HAND = {"fairlane-admin": "true"}
PART_OF = {"app.kubernetes.io/part-of": "fairlane"}
ADDED_PORTS = {"metrics": 8080}  # by the operator, in every Ray container
VALUES = "valkey-values.yaml"
PROXY_METRICS = "proxy-metrics"  # HAProxy's, which see `deployments.haproxy`


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """A pod that will be: where it is written, and what stands there."""

    manifest: Manifest
    path: Path_
    template: Mapping[str, Any]
    claims: frozenset[str] = frozenset()

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return dict(self.template.get("metadata", {}).get("labels") or {})

    @property
    def spec(self) -> Mapping[str, Any]:
        """Its spec."""
        return dict(self.template.get("spec") or {})

    @property
    def containers(self) -> list[tuple[Path_, Mapping[str, Any]]]:
        """Each with the way to it."""
        return [
            ((*self.path, "spec", kind, number), container)
            for kind in ("initContainers", "containers")
            for number, container in enumerate(self.spec.get(kind) or ())
        ]

    @property
    def ports(self) -> dict[str, int]:
        """Its named ports."""
        return {
            port["name"]: port["containerPort"]
            for _, container in self.containers
            for port in container.get("ports") or ()
            if "name" in port
        }


def pod_templates(manifests: Sequence[Manifest]) -> list[PodTemplate]:
    """All pods of all manifests."""
    found = []
    for manifest in manifests:
        if manifest.kind == "RayService":
            cluster = manifest.spec.get("rayClusterConfig") or {}
            head = cluster.get("headGroupSpec") or {}
            at: Path_ = ("spec", "rayClusterConfig")
            found.append(
                PodTemplate(
                    manifest, (*at, "headGroupSpec", "template"), head.get("template") or {}
                )
            )
            for number, group in enumerate(cluster.get("workerGroupSpecs") or ()):
                path = (*at, "workerGroupSpecs", number, "template")
                found.append(PodTemplate(manifest, path, group.get("template") or {}))
        elif manifest.kind in ("StatefulSet", "Deployment", "DaemonSet", "Job"):
            claims = frozenset(
                claim["metadata"]["name"]
                for claim in manifest.spec.get("volumeClaimTemplates") or ()
            )
            template = manifest.spec.get("template") or {}
            found.append(PodTemplate(manifest, ("spec", "template"), template, claims))
    return found


@dataclass(frozen=True, slots=True)
class World:
    """What there is to be named. secrets, config_maps: keys by name. services: ports by name.
    chart: labels of the pods of the Helm chart beside the overlay, if there is one."""

    pods: Sequence[PodTemplate]
    secrets: Mapping[str, frozenset[str]]
    config_maps: Mapping[str, frozenset[str]]
    services: Mapping[str, frozenset[int]]
    chart: Mapping[str, str] | None

    @classmethod
    def of(cls, manifests: Sequence[Manifest], overlay: Path, secrets: Path) -> World:
        """secrets: the script that makes them."""
        services = {
            manifest.name: frozenset(port["port"] for port in manifest.spec.get("ports") or ())
            for manifest in manifests
            if manifest.kind == "Service"
        }
        for manifest in manifests:
            if manifest.kind == "RayService":  # the operator makes this one
                made = manifest.spec.get("serveService") or {}
                name = made.get("metadata", {}).get("name", f"{manifest.name}-serve-svc")
                ports = made.get("spec", {}).get("ports") or [{"port": 8000}]
                services[name] = frozenset(port["port"] for port in ports)
        chart = None
        if (overlay / VALUES).is_file():
            values = yaml.safe_load((overlay / VALUES).read_text(encoding="utf-8"))
            release = values["fullnameOverride"]
            chart = {"app.kubernetes.io/instance": release}
            services[f"{release}-sentinel"] = frozenset({26379})
        return cls(
            pod_templates(manifests),
            made_secrets(secrets) | _keys(manifests, "Secret"),
            _keys(manifests, "ConfigMap"),
            services,
            chart,
        )


def made_secrets(script: Path) -> dict[str, frozenset[str]]:
    """Names and keys of the Secrets that the script would make."""
    text = subprocess.run(
        [str(script.resolve()), "--dry-run"], capture_output=True, text=True, check=True
    ).stdout
    return {
        secret["metadata"]["name"]: frozenset(secret["stringData"])
        for secret in yaml.safe_load_all(text)
        if secret
    }


def _keys(manifests: Sequence[Manifest], kind: str) -> dict[str, frozenset[str]]:
    return {
        manifest.name: frozenset(
            key
            for part in ("data", "binaryData", "stringData")
            for key in manifest.content.get(part) or ()
        )
        for manifest in manifests
        if manifest.kind == kind
    }


def problems(manifests: Sequence[Manifest], world: World) -> Iterator[str]:
    """Whatever is named and not there."""
    for pod in world.pods:
        yield from _of_pod(pod, world)
    for manifest in manifests:
        yield from _of_selectors(manifest, world)
        if manifest.kind == "HTTPRoute":
            yield from _of_route(manifest, world)
        if manifest.kind == "Ingress":
            yield from _of_ingress(manifest, world)
    yield from _of_namespaces(manifests)


def _of_pod(pod: PodTemplate, world: World) -> Iterator[str]:
    volumes = set(pod.claims)
    for number, volume in enumerate(pod.spec.get("volumes") or ()):
        at = (*pod.path, "spec", "volumes", number)
        volumes.add(volume["name"])
        for kind, name_key, there in (
            ("secret", "secretName", world.secrets),
            ("configMap", "name", world.config_maps),
        ):
            source = volume.get(kind)
            if source is None:
                continue
            keys = [item["key"] for item in source.get("items") or ()]
            wrong = _missing(there, kind, source.get(name_key), keys, source.get("optional"))
            if wrong:
                yield pod.manifest.problem((*at, kind), wrong)
    for at, container in pod.containers:
        for number, mount in enumerate(container.get("volumeMounts") or ()):
            if mount["name"] not in volumes:
                what = f"no volume is called {mount['name']}"
                yield pod.manifest.problem((*at, "volumeMounts", number), what)
        yield from _of_environment(pod, at, container, world)
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            for action in ("tcpSocket", "httpGet"):
                port = ((container.get(probe) or {}).get(action) or {}).get("port")
                if isinstance(port, str) and port not in pod.ports:
                    yield pod.manifest.problem((*at, probe, action, "port"), f"no port {port}")


def _of_environment(
    pod: PodTemplate, at: Path_, container: Mapping[str, Any], world: World
) -> Iterator[str]:
    for number, source in enumerate(container.get("envFrom") or ()):
        for field, kind, there in (
            ("configMapRef", "configMap", world.config_maps),
            ("secretRef", "secret", world.secrets),
        ):
            if field in source:
                reference = source[field]
                wrong = _missing(there, kind, reference["name"], (), reference.get("optional"))
                if wrong:
                    yield pod.manifest.problem((*at, "envFrom", number, field), wrong)
    for number, variable in enumerate(container.get("env") or ()):
        yield from _of_value(pod.manifest, (*at, "env", number), variable, world)


def _of_value(
    manifest: Manifest, at: Path_, variable: Mapping[str, Any], world: World
) -> Iterator[str]:
    for field, kind, there in (
        ("configMapKeyRef", "configMap", world.config_maps),
        ("secretKeyRef", "secret", world.secrets),
    ):
        reference = (variable.get("valueFrom") or {}).get(field)
        if reference:
            wrong = _missing(
                there, kind, reference["name"], [reference["key"]], reference.get("optional")
            )
            if wrong:
                yield manifest.problem((*at, "valueFrom", field), wrong)


def _missing(
    there: Mapping[str, frozenset[str]],
    kind: str,
    name: str | None,
    keys: Sequence[str],
    optional: bool | None,
) -> str | None:
    if optional:
        return None
    if name is None or name not in there:
        made = "by k8s/secrets.sh" if kind == "secret" else "here"
        return f"no {kind} {name} is made {made}; there are: {', '.join(sorted(there))}"
    lacking = [key for key in keys if key not in there[name]]
    return f"the {kind} {name} has no key {', '.join(lacking)}" if lacking else None


def _of_selectors(manifest: Manifest, world: World) -> Iterator[str]:
    spec = manifest.spec
    if manifest.kind == "Service" and spec.get("selector"):
        yield from _of_service(manifest, world)
    elif manifest.kind == "PodDisruptionBudget":
        if not _selected(spec.get("selector") or {}, world):
            yield manifest.problem(("spec", "selector"), "no pod has these labels")
    elif manifest.kind == "PodMonitor":
        pods = _selected(spec.get("selector") or {}, world)
        if not pods:
            yield manifest.problem(("spec", "selector"), "no pod has these labels")
        for number, endpoint in enumerate(spec.get("podMetricsEndpoints") or ()):
            at, port = ("spec", "podMetricsEndpoints", number, "port"), endpoint.get("port")
            asked = [pod for pod in pods if port in pod.ports]
            if not asked:
                yield manifest.problem(at, f"no such pod has a port called {port}")
            elif port == PROXY_METRICS and not all(
                _has_variable(pod, METRICS_HOST) for pod in asked
            ):
                what = f"it listens on loopback; give pods with that port {METRICS_HOST}: '*'"
                yield manifest.problem(at, what)
    elif manifest.kind == "NetworkPolicy":
        yield from _of_policy(manifest, world)
    elif manifest.kind in ("StatefulSet", "Deployment"):
        labels = pod_templates([manifest])[0].labels
        if not _matches(spec.get("selector") or {}, labels):
            yield manifest.problem(("spec", "selector"), "the template's labels do not match")
        name = spec.get("serviceName")
        if name and name not in world.services:
            yield manifest.problem(("spec", "serviceName"), f"no Service is called {name}")


def _has_variable(pod: PodTemplate, name: str) -> bool:
    _, container = pod.containers[0]
    return any(variable["name"] == name for variable in container.get("env") or ())


def _of_service(manifest: Manifest, world: World) -> Iterator[str]:
    pods = _selected({"matchLabels": manifest.spec["selector"]}, world)
    if not pods:
        yield manifest.problem(("spec", "selector"), "no pod has these labels")
        return
    for number, port in enumerate(manifest.spec.get("ports") or ()):
        target = port.get("targetPort", port["port"])
        if not all(target in pod.ports or target in pod.ports.values() for pod in pods):
            at = ("spec", "ports", number, "targetPort")
            yield manifest.problem(at, f"the selected pods have no port {target}")


def _of_policy(manifest: Manifest, world: World) -> Iterator[str]:
    spec = manifest.spec
    pods = _selected(spec.get("podSelector") or {}, world)
    of_chart = world.chart is not None and _matches(spec.get("podSelector") or {}, world.chart)
    if not pods and not of_chart:
        yield manifest.problem(("spec", "podSelector"), "no pod has these labels")
        return
    open_ports = {port for pod in pods for port in pod.ports.values()} | {*ADDED_PORTS.values()}
    for number, rule in enumerate(spec.get("ingress") or ()):
        at = ("spec", "ingress", number)
        for other, peer in enumerate(rule.get("from") or ()):
            selector = peer.get("podSelector")
            if selector is None or "namespaceSelector" in peer:
                continue  # pods of another namespace are not ours to know
            known = _selected(selector, world) or _matches(selector, BY_HAND)
            if not known and not (world.chart and _matches(selector, world.chart)):
                yield manifest.problem(
                    (*at, "from", other, "podSelector"), "no pod has these labels"
                )
        for other, port in enumerate(rule.get("ports") or ()):
            if not of_chart and port.get("port") not in open_ports:
                what = f"the selected pods have no port {port.get('port')}"
                yield manifest.problem((*at, "ports", other), what)


def _of_route(manifest: Manifest, world: World) -> Iterator[str]:
    for number, rule in enumerate(manifest.spec.get("rules") or ()):
        for other, backend in enumerate(rule.get("backendRefs") or ()):
            if backend["port"] not in world.services.get(backend["name"], ()):
                at = ("spec", "rules", number, "backendRefs", other)
                what = f"no Service {backend['name']} has a port {backend['port']}"
                yield manifest.problem(at, what)


def _of_ingress(manifest: Manifest, world: World) -> Iterator[str]:
    for number, rule in enumerate(manifest.spec.get("rules") or ()):
        for other, path in enumerate((rule.get("http") or {}).get("paths") or ()):
            service = path["backend"]["service"]
            port = service["port"]["number"]
            if port not in world.services.get(service["name"], ()):
                at = ("spec", "rules", number, "http", "paths", other, "backend", "service")
                what = f"no Service {service['name']} has a port {port}"
                yield manifest.problem(at, what)


def _of_namespaces(manifests: Sequence[Manifest]) -> Iterator[str]:
    made = {manifest.name for manifest in manifests if manifest.kind == "Namespace"}
    for manifest in manifests:
        namespace = manifest.content["metadata"].get("namespace")
        if manifest.kind != "Namespace" and namespace not in made:
            at = ("metadata", "namespace")
            yield manifest.problem(at, f"the namespace {namespace} is not made here")


def _selected(selector: Mapping[str, Any], world: World) -> list[PodTemplate]:
    return [pod for pod in world.pods if _matches(selector, pod.labels)]


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    for name, value in (selector.get("matchLabels") or {}).items():
        if labels.get(name) != value:
            return False
    for expression in selector.get("matchExpressions") or ():
        value, values = labels.get(expression["key"]), expression.get("values") or ()
        holds = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[expression["operator"]]
        if not holds:
            return False
    return True
