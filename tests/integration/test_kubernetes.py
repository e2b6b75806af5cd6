"""The manifests in k8s/, rendered by the real kustomize and checked; and that the checks find what
is wrong, with its file and field."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytest.importorskip("kubernetes_validate")

from deployments.doctor import store
from deployments.doctor.finding import State
from deployments.embedded_store import free_port, server_binary
from deployments.kubernetes import __main__ as check
from deployments.kubernetes import monitoring, schemas
from deployments.kubernetes.manifest import RenderError, kustomize, render
from deployments.kubernetes.references import World, made_secrets
from fairness.store.settings import Credentials, StoreSettings
from router.app import ENGINE_PATHS, PASS_PATHS
from tests.integration.kubernetes_mistakes import GPU, MISTAKES, RAYSERVICE, SERVE

ROOT = Path(__file__).parents[2]
SECRET = "s3cr3t-of-the-store"
OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir() if path.is_dir())

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


def test_there_are_three_overlays_and_maybe_yours() -> None:
    assert {"dev-cpu", "gpu", "gpu-ha"} <= set(OVERLAYS)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_application_is_the_overlays_own_file_and_secrets_are_not_in_it(overlay: str) -> None:
    manifests = render(ROOT / "k8s/overlays" / overlay)
    (service,) = [manifest for manifest in manifests if manifest.kind == "RayService"]
    text = (ROOT / "k8s/overlays" / overlay / "serve.yaml").read_text()
    assert service.spec["serveConfigV2"] == text
    assert not [manifest for manifest in manifests if manifest.kind == "Secret"]
    assert not [m for m in manifests if m.kind == "ConfigMap" and "serve.yaml" in m.content["data"]]


def spoil(copy: Path, file: str, right: str, wrong: str) -> None:
    """Write `wrong` wherever `right` stands in a file."""
    text = (copy / file).read_text()
    assert right in text
    (copy / file).write_text(text.replace(right, wrong))


@pytest.mark.parametrize("case", MISTAKES)
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


@pytest.mark.parametrize(
    ("right", "wrong", "what"),
    [
        ("", "", None),
        ("number: 8000", "number: 80", "paths[0].backend.service: no Service fairlane has a port"),
        ("pathType: Exact", "type: Exact", "paths[3]: "),
    ],
)
def test_an_ingress_in_place_of_the_gateway_is_checked_as_strictly(
    copy: Path, custom: schemas.Schemas, right: str, wrong: str, what: str | None
) -> None:
    spoil(copy, GPU, "../../components/gateway", "../../components/ingress")
    spoil(copy, "k8s/components/ingress/ingress.yaml", right, wrong)
    found = problems("gpu", custom)
    if what is None:
        assert found == []
    else:
        assert any("Ingress/fairlane: spec.rules[0].http" in line for line in found), found
        assert any(what in line for line in found), found


def routed(component: str) -> list[str]:
    text = (ROOT / "k8s/components" / component).read_text()
    (rule,) = yaml.safe_load(text)["spec"]["rules"]
    if "http" in rule:
        return [path["path"] for path in rule["http"]["paths"]]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    return [match["path"]["value"] for match in rule["matches"]]


@pytest.mark.parametrize("component", ["gateway/httproute.yaml", "ingress/ingress.yaml"])
def test_every_path_of_the_api_is_routed_and_no_other(component: str) -> None:
    prefixes = routed(component)
    for path in (*ENGINE_PATHS, *PASS_PATHS, "/v1/models", "/readyz"):
        assert any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes), path
    for path in ("/admin", "/metrics", "/-/routes"):
        assert not any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)


def test_the_stores_command_starts_a_server_as_it_should_be(tmp_path: Path) -> None:
    """The container's own command, with its folders here."""
    (pod,) = [
        manifest
        for manifest in render(ROOT / "k8s/overlays/dev-cpu")
        if manifest.kind == "StatefulSet"
    ]
    (container,) = pod.spec["template"]["spec"]["containers"]
    port = free_port()
    for folder, file, text in (
        ("/etc/valkey-password", "password", SECRET + "\n"),
        (
            "/etc/valkey",
            "valkey.conf",
            (ROOT / "k8s/valkey/base/valkey.conf").read_text() + f"port {port}\n",
        ),
        ("/data", "", ""),
    ):
        (tmp_path / folder[1:]).mkdir(parents=True)
        if file:
            (tmp_path / folder[1:] / file).write_text(text)
    config = tmp_path / "etc/valkey/valkey.conf"
    config.write_text(config.read_text().replace("dir /data", f"dir {tmp_path}/data"))
    command = [part.replace("/etc/", f"{tmp_path}/etc/") for part in container["command"]]
    binary = server_binary()
    process = subprocess.Popen(command, env={"PATH": f"{binary.parent}:/usr/bin:/bin"})
    try:
        url = f"redis://127.0.0.1:{port}/0"
        settings = StoreSettings(url, Credentials(password=SECRET))
        deadline = time.monotonic() + 60
        while True:
            found = {finding.about: finding for finding in store.look(settings)}
            if "reachable" not in found:
                break
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        for about in ("persistence", "eviction", "permissions", "role"):
            assert found[about].state is State.OK, found[about]
        (refused,) = store.look(StoreSettings(url))
        assert refused.state is State.FAILED
        command_line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert b"valkey-server" in command_line  # the shell is gone: signals reach the server
        assert SECRET.encode() not in command_line
    finally:
        process.terminate()
        assert process.wait(60) == 0


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
