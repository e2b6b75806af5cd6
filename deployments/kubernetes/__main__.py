"""`python -m deployments.kubernetes OVERLAY...`: everything that can be known without a cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from deployments.kubernetes import application, operator, references, schemas
from deployments.kubernetes.manifest import RenderError, render
from deployments.kubernetes.references import World

SECRETS = Path("k8s/secrets.sh")


def problems(overlay: Path, custom: schemas.Schemas, secrets: Path, build: bool) -> Iterator[str]:
    """A line for each. secrets: the script that makes them. Raises RenderError."""
    manifests = render(overlay)
    of_schemas = [line for manifest in manifests for line in schemas.problems(manifest, custom)]
    yield from of_schemas
    if of_schemas:
        return  # the rest relies on the shapes
    world = World.of(manifests, overlay, secrets)
    yield from references.problems(manifests, world)
    yield from operator.problems(manifests)
    for manifest in application.rayservices(manifests):
        yield from application.problems(manifest, world, overlay, build)


def main() -> int:
    """Exit status: 1 when there are problems."""
    parser = argparse.ArgumentParser(prog="python -m deployments.kubernetes", description=__doc__)
    parser.add_argument("overlays", nargs="+", type=Path, help="folders with a kustomization.yaml")
    parser.add_argument(
        "--crds",
        action="append",
        default=[],
        metavar="PATH_OR_URL",
        help="definitions of custom resources to check against, instead of those that are here",
    )
    parser.add_argument("--secrets", type=Path, default=SECRETS, help=f"default {SECRETS}")
    parser.add_argument("--no-build", action="store_true", help="do not build the application")
    arguments = parser.parse_args()
    custom = schemas.custom_schemas(*arguments.crds)
    count = 0
    for overlay in arguments.overlays:
        try:
            found = list(problems(overlay, custom, arguments.secrets, not arguments.no_build))
        except RenderError as error:
            found = [str(error)]
        for line in found:
            print(line)
        count += len(found)
        print(f"{overlay}: {len(found) or 'no'} problems", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
