"""A Serve config file with one Fairlane application: read, and every problem named with its line.

The `args` of the application are an `AppConfig`. The `user_config` of its deployment `Router`
replaces fields of theirs, those of a `LiveConfig`: what stands there Serve changes without a
restart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from deployments.config import AppConfig, LiveConfig, changed
from deployments.configuration.fields import Loc
from deployments.configuration.problems import Problem, did_you_mean, problems_of

IMPORT_PATH = "deployments.app:build"
ROUTER = "Router"
STORE = "Store"


class UnsoundFileError(Exception):
    """lines: one a problem, as `file:line: field: what is wrong; what to do`."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


@dataclass(frozen=True, slots=True)
class ServeFile:
    """What a file says. at: the place of its Fairlane application; router: of the deployment
    `Router` in it, if it is there."""

    path: Path
    node: yaml.Node
    content: dict[str, Any]
    at: Loc
    router: Loc | None

    @classmethod
    def read(cls, path: Path) -> ServeFile:
        """Raises UnsoundFileError."""
        try:
            text = path.read_text(encoding="utf-8")
            node = yaml.compose(text, yaml.SafeLoader)
            content = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UnsoundFileError([f"{path}: can't be read: {reason}; name another"]) from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark is not None else ""
            # Names of one character are YAML's own; longer ones may be what somebody wrote.
            said = re.sub(r"'[^']{2,}'", "'...'", error.problem or error.context or "")
            raise UnsoundFileError([f"{path}{line}: is not YAML: {said}; mend it"]) from None
        except yaml.YAMLError:
            raise UnsoundFileError([f"{path}: is not YAML; mend it"]) from None
        if node is None or not isinstance(content, dict):
            raise UnsoundFileError([f"{path}: is no Serve config file; give it `applications`"])
        try:
            at = _application(content)
            router = _router(_get(content, at), at)
        except _EnvelopeError as error:
            raise UnsoundFileError([_line(path, node, error.problem)]) from None
        return cls(path, node, content, at, router)

    @property
    def application(self) -> dict[str, Any]:
        """The Fairlane application."""
        return dict(_get(self.content, self.at))

    @property
    def args(self) -> dict[str, Any]:
        """What the application is built from."""
        return dict(self.application.get("args") or {})

    @property
    def user_config(self) -> dict[str, Any]:
        """What routers take up without a restart, instead of fields of `args`."""
        if self.router is None:
            return {}
        return dict(_get(self.content, self.router).get("user_config") or {})

    def config(self, args: dict[str, Any] | None = None) -> AppConfig:
        """All of it, changes included. args: to take instead of the file's. Raises
        UnsoundFileError."""
        args = self.args if args is None else args
        try:
            built = AppConfig.model_validate(args)
        except ValidationError as error:
            raise self._unsound(problems_of(error, AppConfig), (*self.at, "args")) from None
        if self.router is None:
            return built
        place = (*self.router, "user_config")
        misplaced = [
            Problem((name,), "can't be changed without a restart", "move it to `args`")
            for name in self.user_config
            if name in AppConfig.model_fields and name not in LiveConfig.model_fields
        ]
        if misplaced:
            raise self._unsound(misplaced, place)
        try:
            LiveConfig.model_validate(changed(built.live(), self.user_config))
        except ValidationError as error:
            raise self._unsound(problems_of(error, LiveConfig), place) from None
        return AppConfig.model_validate(changed(args, self.user_config))

    def check(self) -> list[str]:
        """All problems, of the fields that Serve reads too."""
        problems = [*_written_twice(self.node), *self._serve_problems()]
        found = list(map(self._shown, problems))
        try:
            config = self.config()
        except UnsoundFileError as error:
            return found + list(error.lines)
        try:
            config.store.settings()
        except ValueError as error:  # what REDIS_URL says is heeded
            found.append(self._shown(Problem((*self.at, "args", "store"), str(error))))
        known = {ROUTER, STORE, *(pool.deployment_name for pool in config.pools)}
        for number, deployment in enumerate(self.application.get("deployments") or ()):
            if deployment.get("name") not in known:
                loc = (*self.at, "deployments", number, "name")
                mend = did_you_mean(str(deployment.get("name")), known)
                found.append(self._shown(Problem(loc, "no deployment of Fairlane", mend)))
        return found

    def _serve_problems(self) -> Iterator[Problem]:
        """Ray's own models let unknown fields pass."""
        from ray.serve.schema import (
            DeploymentSchema,
            HTTPOptionsSchema,
            ServeApplicationSchema,
            ServeDeploySchema,
        )

        yield from _unknown(self.content, (), ServeDeploySchema)
        yield from _unknown(self.content.get("http_options"), ("http_options",), HTTPOptionsSchema)
        yield from _unknown(self.application, self.at, ServeApplicationSchema)
        for number, deployment in enumerate(self.application.get("deployments") or ()):
            yield from _unknown(deployment, (*self.at, "deployments", number), DeploymentSchema)
        try:
            ServeDeploySchema.model_validate(self.content)
        except ValidationError as error:
            yield from problems_of(error, ServeDeploySchema)

    def _unsound(self, problems: Iterable[Problem], place: Loc) -> UnsoundFileError:
        return UnsoundFileError(
            [self._shown(replace(problem, loc=place + problem.loc)) for problem in problems]
        )

    def _shown(self, problem: Problem) -> str:
        return _line(self.path, self.node, problem)


class _EnvelopeError(Exception):
    def __init__(self, loc: Loc, what: str, mend: str) -> None:
        super().__init__(what)
        self.problem = Problem(loc, what, mend)


def _application(content: dict[str, Any]) -> Loc:
    applications = content.get("applications")
    if not isinstance(applications, list) or not all(isinstance(a, dict) for a in applications):
        mend = f"give a list with one whose import_path is {IMPORT_PATH}"
        raise _EnvelopeError(("applications",), "should be a list of applications", mend)
    ours = [n for n, a in enumerate(applications) if a.get("import_path") == IMPORT_PATH]
    if len(ours) != 1:
        what = "should have one application of Fairlane"
        raise _EnvelopeError(("applications",), what, f"give one the import_path {IMPORT_PATH}")
    if not isinstance(applications[ours[0]].get("args") or {}, dict):
        loc = ("applications", ours[0], "args")
        raise _EnvelopeError(loc, "should have fields", "write each as `name: value`")
    return ("applications", ours[0])


def _router(application: dict[str, Any], at: Loc) -> Loc | None:
    deployments = application.get("deployments") or []
    if not isinstance(deployments, list) or not all(isinstance(d, dict) for d in deployments):
        loc = (*at, "deployments")
        raise _EnvelopeError(loc, "should be a list of deployments", f"see `name: {ROUTER}`")
    for number, deployment in enumerate(deployments):
        if deployment.get("name") == ROUTER:
            loc = (*at, "deployments", number)
            if not isinstance(deployment.get("user_config") or {}, dict):
                loc = (*loc, "user_config")
                raise _EnvelopeError(loc, "should have fields", "write each as `name: value`")
            return loc
    return None


def _get(content: Any, loc: Loc) -> Any:
    for part in loc:
        content = content[part]
    return content


def _unknown(value: Any, loc: Loc, model: type[BaseModel]) -> Iterator[Problem]:
    if isinstance(value, dict):
        for name in value.keys() - model.model_fields.keys():
            mend = did_you_mean(str(name), model.model_fields)
            yield Problem((*loc, str(name)), "Serve knows no such field", mend)


def _written_twice(node: yaml.Node, loc: Loc = ()) -> Iterator[Problem]:
    """Of two equal keys YAML takes the last one without a word."""
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _written_twice(item, (*loc, number))
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            here = (*loc, str(key.value))
            if key.value in seen:
                yield Problem(here, "is written twice", "leave one of them")
            seen.add(str(key.value))
            yield from _written_twice(value, here)


def _line(path: Path, node: yaml.Node, problem: Problem) -> str:
    return f"{path}:{_line_number(node, problem.loc)}: {problem}"


def _line_number(node: yaml.Node, loc: Loc) -> int:
    """Where a place begins, or the innermost that is written around it."""
    line = node.start_mark.line
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in reversed(node.value) if pair[0].value == part), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return int(line) + 1
