"""The manifests in k8s/, rendered by the real kustomize and checked; and that the checks find what
is wrong, with its file and field."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytest.importorskip("kubernetes_validate")

from deployments.kubernetes import __main__ as check
from deployments.kubernetes import monitoring, schemas
from deployments.kubernetes.manifest import RenderError, kustomize, render
from deployments.kubernetes.references import World, made_secrets
from router.app import ENGINE_PATHS, PASS_PATHS

ROOT = Path(__file__).parents[2]
OVERLAYS = ("dev-cpu", "gpu", "gpu-ha")
HEAD = "spec.rayClusterConfig.headGroupSpec"
WORKERS = "spec.rayClusterConfig.workerGroupSpecs"
RAYSERVICE = "k8s/base/rayservice.yaml"
SERVE = "k8s/overlays/gpu/serve.yaml"
GPU = "k8s/overlays/gpu/kustomization.yaml"

try:
    kustomize()
except RenderError as missing:
    if os.environ.get("CI"):
        raise
    pytestmark = pytest.mark.skip(reason=str(missing))


@pytest.fixture(scope="module")
def custom() -> schemas.Schemas:
    # A folder or address of definitions may be named, those of a cluster for one.
    return schemas.custom_schemas(*os.environ.get("FAIRLANE_CRDS", "").split())


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout to break."""
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    (tmp_path / "deployments").mkdir()
    for name in ("kustomization.yaml", "serve.env"):
        shutil.copy(ROOT / "deployments" / name, tmp_path / "deployments")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def problems(overlay: str, custom: schemas.Schemas, build: bool = False) -> list[str]:
    folder = Path("k8s/overlays") / overlay
    return list(check.problems(folder, custom, Path("k8s/secrets.sh"), build))


def test_every_overlay_is_sound_and_its_application_can_be_built(
    custom: schemas.Schemas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    found = {overlay: problems(overlay, custom, build=True) for overlay in OVERLAYS}
    assert found == {overlay: [] for overlay in OVERLAYS}


def test_every_overlay_there_is_is_checked() -> None:
    assert sorted(OVERLAYS) == sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_application_is_the_overlays_own_file_and_secrets_are_not_in_it(overlay: str) -> None:
    manifests = render(ROOT / "k8s/overlays" / overlay)
    (service,) = [manifest for manifest in manifests if manifest.kind == "RayService"]
    text = (ROOT / "k8s/overlays" / overlay / "serve.yaml").read_text()
    assert service.spec["serveConfigV2"] == text
    assert not [manifest for manifest in manifests if manifest.kind == "Secret"]
    assert not [m for m in manifests if m.kind == "ConfigMap" and "serve.yaml" in m.content["data"]]


BROKEN = [
    # a wrong field, of a custom resource and of a core kind
    (
        RAYSERVICE,
        "rayVersion:",
        "rayversion:",
        f"{RAYSERVICE}: RayService/fairlane: spec.rayClusterConfig: ",
        "'rayversion' was unexpected",
    ),
    (
        RAYSERVICE,
        "imagePullPolicy: IfNotPresent\n              ports:\n                - {name: gcs",
        "imagePullPolice: IfNotPresent\n              ports:\n                - {name: gcs",
        f"{HEAD}.template.spec.containers[0]: ",
        "'imagePullPolice' was unexpected",
    ),
    (
        "k8s/base/services.yaml",
        "targetPort:",
        "targetport:",
        "k8s/base/services.yaml: Service/fairlane-admin: spec.ports[0]: ",
        "'targetport'",
    ),
    (
        "k8s/base/networkpolicies.yaml",
        "policyTypes: [Ingress]\n---",
        "policyType: [Ingress]\n---",
        "NetworkPolicy/fairlane-closed: spec: ",
        "'policyType'",
    ),
    (
        "k8s/components/gateway/httproute.yaml",
        "backendRequest: 0s",
        "backend: 0s",
        "HTTPRoute/fairlane: spec.rules[0].timeouts: ",
        "'backend' was unexpected",
    ),
    (
        "k8s/components/monitoring/podmonitor.yaml",
        "interval: 15s",
        "interval: often",
        "PodMonitor/fairlane: spec.podMetricsEndpoints[0].interval: ",
        "'often' does not match",
    ),
    # a bad quantity
    (
        RAYSERVICE,
        'limits: {cpu: "2", memory: 4Gi}',
        'limits: {cpu: "2", memory: 4GiB}',
        f"{HEAD}.template.spec.containers[0].resources.limits.memory: ",
        "",
    ),
    (
        "k8s/valkey/base/valkey.yaml",
        "{storage: 8Gi}",
        "{storage: 8 Gi}",
        "k8s/valkey/base/valkey.yaml: StatefulSet/fairlane-gcs-store: "
        "spec.volumeClaimTemplates[0].spec.resources.requests.storage: ",
        "'8 Gi' is no quantity",
    ),
    # what is named and not there
    (
        "k8s/secrets.sh",
        "make fairlane-grant-key",
        "make grant-key",
        f"{HEAD}.template.spec.containers[0].env[5].valueFrom.secretKeyRef: ",
        "no secret fairlane-grant-key",
    ),
    (
        "k8s/secrets.sh",
        '"password=$(random)" "sentinel',
        '"pass=$(random)" "sentinel',
        f"{SERVE}",
        "/etc/fairlane/store/password is in no volume",
    ),
    (
        RAYSERVICE,
        "configMap: {name: fairlane-clients}",
        "configMap: {name: clients}",
        f"{HEAD}.template.spec.volumes[4].configMap: ",
        "no configMap clients is made here",
    ),
    (
        RAYSERVICE,
        "{name: tmp, mountPath: /tmp}",
        "{name: temp, mountPath: /tmp}",
        f"{HEAD}.template.spec.containers[0].volumeMounts[0]: ",
        "no volume is called temp",
    ),
    (
        "k8s/base/services.yaml",
        "component: router",
        "component: routers",
        "Service/fairlane-admin: spec.selector: ",
        "no pod has these labels",
    ),
    (
        "k8s/base/services.yaml",
        "targetPort: admin",
        "targetPort: adm",
        "Service/fairlane-admin: spec.ports[0].targetPort: ",
        "no port adm",
    ),
    (
        "k8s/base/disruption.yaml",
        "component: replica",
        "component: engine",
        "PodDisruptionBudget/fairlane-replicas: spec.selector: ",
        "no pod has these labels",
    ),
    (
        "k8s/components/store/networkpolicy.yaml",
        "port: 6379",
        "port: 6380",
        "NetworkPolicy/fairlane-store: spec.ingress[0].ports[0]: ",
        "no port 6380",
    ),
    (
        "k8s/components/store/networkpolicy.yaml",
        "values: [router, replica]",
        "values: [proxy]",
        "NetworkPolicy/fairlane-store: spec.ingress[0].from[0].podSelector: ",
        "no pod",
    ),
    (
        "k8s/components/monitoring/podmonitor.yaml",
        "port: proxy-metrics",
        "port: haproxy",
        "PodMonitor/fairlane: spec.podMetricsEndpoints[1].port: ",
        "haproxy",
    ),
    (
        "k8s/components/gateway/httproute.yaml",
        "port: 8000",
        "port: 80",
        "HTTPRoute/fairlane: spec.rules[0].backendRefs[0]: ",
        "no Service fairlane has a port 80",
    ),
    (
        "k8s/valkey/base/valkey.yaml",
        "serviceName: store",
        "serviceName: valkey",
        "StatefulSet/fairlane-gcs-store: spec.serviceName: ",
        "no Service is called valkey",
    ),
    (
        "deployments/serve.env",
        "RAY_SERVE_ENABLE_HA_PROXY=1",
        "",
        f"{HEAD}.template.spec.containers[0].envFrom: ",
        "lacks RAY_SERVE_ENABLE_HA_PROXY",
    ),
    # what the operator refuses
    (RAYSERVICE, 'num-cpus: "0"', 'num-cpus: "1"', f"{HEAD}.rayStartParams.num-cpus: ", '"0"'),
    (RAYSERVICE, 'rayVersion: "2.60.0"', 'rayVersion: "2.59.0"', "rayVersion: ", "2.60.0"),
    (
        RAYSERVICE,
        "{name: dashboard, containerPort: 8265}",
        "{name: dash, containerPort: 8265}",
        f"{HEAD}.template.spec.containers[0].ports: ",
        "name: dashboard",
    ),
    (
        RAYSERVICE,
        "{type: NewCluster}",
        "{type: Recreate}",
        "spec.upgradeStrategy.type: ",
        "NewCluster",
    ),
    (RAYSERVICE, "minReplicas: 2", "minReplicas: 3", f"{WORKERS}[0].replicas: ", "minReplicas"),
    (RAYSERVICE, "mode: token", "mode: disabled", "authOptions.mode: ", "token"),
    # security
    (
        RAYSERVICE,
        "capabilities: {drop: [ALL]}",
        "capabilities: {drop: [NET_RAW]}",
        f"{HEAD}.template.spec.containers[0].securityContext.capabilities: ",
        "drop ALL",
    ),
    (
        "k8s/valkey/base/valkey.yaml",
        "valkey/valkey:9.1.2",
        "valkey/valkey:latest",
        "StatefulSet/fairlane-gcs-store: spec.template.spec.containers[0].image: ",
        "has no version",
    ),
    # the application
    (
        SERVE,
        "policy: vtc",
        "polices: vtc",
        f"{SERVE}: RayService/fairlane: spec.serveConfigV2:",
        "unknown field; did you mean `policy`?",
    ),
    (SERVE, "proxy_location", "proxy_locations", f"{SERVE}: ", "Serve knows no such field"),
    (SERVE, "fairlane-store:6379", "valkey:6379", "spec.serveConfigV2: ", "no Service valkey"),
    (
        SERVE,
        "fairlane-store:6379",
        "fairlane-gcs-store:6379",
        "spec.serveConfigV2: ",
        "keep them apart",
    ),
    (SERVE, "drain_s: 600", "drain_s: 900", "spec.serveConfigV2: ", "would cut streams"),
    (SERVE, "port: 8001", "port: 8002", "spec.serveConfigV2: ", "admin.port"),
    (SERVE, "port: 8000", "port: 8080", "spec.serveConfigV2: ", "http_options.port"),
    (SERVE, "clients/clients.yaml", "clients/people.yaml", "spec.serveConfigV2: ", "in no volume"),
]


def spoil(copy: Path, file: str, right: str, wrong: str) -> None:
    """Write `wrong` wherever `right` stands in a file."""
    text = (copy / file).read_text()
    assert right in text
    (copy / file).write_text(text.replace(right, wrong))


@pytest.mark.parametrize("case", BROKEN)
def test_a_mistake_is_found_with_its_file_and_field(
    copy: Path, custom: schemas.Schemas, case: tuple[str, ...]
) -> None:
    *change, where, what = case
    spoil(copy, *change)
    found = problems("gpu", custom)
    assert any(where in line and what in line for line in found), found


@pytest.mark.parametrize(
    "case",
    [
        (SERVE, "fairlane.role: router", "fairlane.role: proxy", "Router wants 2 x 1 CPU"),
        (SERVE, "tensor_parallel_size: 1", "tensor_parallel_size: 6", "wants 10 x 1 GPU"),
        (
            GPU,
            "maxReplicas\n        value: 8",
            "maxReplicas\n        value: 1",
            "room for 1 at most",
        ),
        (SERVE, "max_model_len", "max_modell_len", "the application can't be built"),
    ],
)
def test_an_application_that_has_no_room_or_can_not_be_built_is_found(
    copy: Path, custom: schemas.Schemas, case: tuple[str, ...]
) -> None:
    *change, what = case
    spoil(copy, *change)
    found = [line for line in problems("gpu", custom, build=True) if "serveConfigV2" in line]
    assert any(what in line for line in found), found


def test_an_unrendered_overlay_says_why(copy: Path, custom: schemas.Schemas) -> None:
    (copy / GPU).write_text("resources: [nowhere.yaml]\n")
    with pytest.raises(RenderError, match="nowhere"):
        problems("gpu", custom)


def test_upgrades_step_by_step_need_the_autoscaler(copy: Path, custom: schemas.Schemas) -> None:
    file = copy / RAYSERVICE
    text = file.read_text().replace(
        "enableInTreeAutoscaling: true", "enableInTreeAutoscaling: false"
    )
    file.write_text(text)
    (line,) = problems("gpu-ha", custom)
    assert "enableInTreeAutoscaling: NewClusterWithIncrementalUpgrade needs it" in line


def test_the_charts_values_make_what_the_application_asks_for() -> None:
    folder = ROOT / "k8s/overlays/gpu-ha"
    values = yaml.safe_load((folder / "valkey-values.yaml").read_text())
    text = (folder / "serve.yaml").read_text()
    sentinel = values["replica"]["sentinel"]
    assert f"//{values['fullnameOverride']}-sentinel:26379/{sentinel['masterSet']}\n" in text
    keys = made_secrets(ROOT / "k8s/secrets.sh")[values["auth"]["usersExistingSecret"]]
    assert {sentinel["passwordKey"], values["auth"]["aclUsers"]["default"]["passwordKey"]} <= keys
    world = World.of(render(folder), folder, ROOT / "k8s/secrets.sh")
    assert "fairlane-store-sentinel" in world.services


@pytest.mark.skipif(not monitoring.SOURCE.is_dir(), reason="there are no rules to make it of")
def test_rules_and_dashboard_are_those_that_everybody_else_uses(tmp_path: Path) -> None:
    monitoring.write(folder=tmp_path)
    for name in ("rules.yaml", "dashboard.json"):
        made = (monitoring.FOLDER / name).read_text()
        assert made == (tmp_path / name).read_text(), "run `make docs`"
    rules = yaml.safe_load((tmp_path / "rules.yaml").read_text())
    source = yaml.safe_load((monitoring.SOURCE / "alerts.yaml").read_text())
    assert rules["spec"] == source


def test_every_path_of_the_api_is_routed_and_no_other() -> None:
    text = (ROOT / "k8s/components/gateway/httproute.yaml").read_text()
    (rule,) = yaml.safe_load(text)["spec"]["rules"]
    prefixes = [match["path"]["value"] for match in rule["matches"]]
    for path in (*ENGINE_PATHS, *PASS_PATHS, "/v1/models", "/readyz"):
        assert any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes), path
    for path in ("/admin", "/metrics", "/-/routes"):
        assert not any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}


def test_secrets_are_new_each_time_and_long() -> None:
    def values() -> list[str]:
        command = [str(ROOT / "k8s/secrets.sh"), "--dry-run"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [
            value
            for secret in yaml.safe_load_all(done.stdout)
            if secret
            for value in secret["stringData"].values()
        ]

    once, again = values(), values()
    assert len(once) == 5
    assert not set(once) & set(again)
    assert all(len(value) >= 64 for value in once)
