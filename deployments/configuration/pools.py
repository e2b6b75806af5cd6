"""Pools in the configuration: what a token costs, models and their replicas."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from deployments.configuration.strict import Strict
from fairness.cost import ServiceCost

CONTENT_KINDS = frozenset({"text", "image", "audio", "video", "file", "input", "refusal"})


class CostConfig(Strict):
    """Service of a token."""

    input: float = Field(default=1.0, ge=0, description="Service of a prompt token.")
    output: float = Field(default=2.0, ge=0, description="Service of an output token.")
    cached_input: float = Field(
        default=0.0,
        ge=0,
        description="Service of a prompt token that the prefix cache provided; at most `input`.",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> CostConfig:
        self.service_cost()
        return self

    def service_cost(self) -> ServiceCost:
        """The cost function. Raises ValueError for weights that make none."""
        return ServiceCost(self.input, self.output, self.cached_input)


class PredictionConfig(Strict):
    """How many output tokens a request will make, charged at its grant and corrected at its end."""

    predictor: Literal["pool_average", "moving_average", "quantile", "none"] = Field(
        default="pool_average",
        description="Output tokens charged in advance, at the grant: `pool_average` of the pool's "
        "recent requests, `moving_average` of the client's last five, `quantile` of its last "
        "twenty, or `none`; see [theory](theory.md).",
    )
    share: float = Field(
        default=1.0, ge=0, le=1, description="How much of the prediction is charged (0 to 1)."
    )
    level: float = Field(
        default=0.5, gt=0, le=1, description="Which quantile the predictor `quantile` takes."
    )


class AdapterConfig(Strict):
    """A LoRA adapter."""

    path: str = Field(
        min_length=1, description="A folder on each node, or a name on the Hugging Face hub."
    )
    price: float | None = Field(
        default=None,
        gt=0,
        description="Price of a unit of service through it, next to `price` of its pool (which it "
        "has by default): fair sharing counts its tokens so many times as dear.",
    )


class PoolConfig(Strict):
    """One model and its replicas."""

    llm: dict[str, Any] = Field(
        description="The fields of `ray.serve.llm.LLMConfig`, which place the replicas, download "
        "the model and set the engine; `model_loading_config.model_source: tiny` is the random "
        "model that Fairlane makes itself."
    )
    lookahead: int = Field(
        default=4, ge=1, description="Requests kept waiting at a replica to hide a round trip."
    )
    drain_s: float = Field(
        default=600.0, ge=0, description="Seconds that a leaving replica lets its streams go on."
    )
    charge_interval_s: float = Field(
        default=0.1, gt=0, description="Seconds between two reports of charges."
    )
    price: float = Field(
        default=1.0,
        gt=0,
        description="Price of a unit of service in this pool, next to those of the other pools "
        "(means something with `across_pools.enabled`) and of its adapters.",
    )
    adapters: dict[str, str | AdapterConfig] = Field(
        default={},
        description="LoRA adapters of the model: the name that clients ask for -> a folder on each "
        "node, or a name on the Hugging Face hub; or `{path: ..., price: ...}`. See "
        "[pools](pools.md#lora-adapters).",
    )

    @property
    def model_id(self) -> str:
        """The name that clients ask for."""
        return str(self.llm["model_loading_config"]["model_id"])

    @property
    def adapter_paths(self) -> dict[str, str]:
        """Where each adapter is."""
        return {
            name: given if isinstance(given, str) else given.path
            for name, given in self.adapters.items()
        }

    @property
    def prices(self) -> dict[str, float]:
        """Of adapters, next to the pool's, of those that have others."""
        return {
            name: given.price / self.price
            for name, given in self.adapters.items()
            if isinstance(given, AdapterConfig) and given.price not in (None, self.price)
        }

    @property
    def deployment_name(self) -> str:
        """What Serve calls the pool's replicas (Ray makes it of the model's id)."""
        return f"Replica:{self.model_id.replace('/', '--').replace('.', '_')}"

    @field_validator("llm")
    @classmethod
    def _names_a_model(cls, llm: dict[str, Any]) -> dict[str, Any]:
        loading = llm.get("model_loading_config")
        if not isinstance(loading, dict) or not loading.get("model_id"):
            raise ValueError("give llm.model_loading_config.model_id, the name clients ask for")
        scaling = (llm.get("deployment_config") or {}).get("autoscaling_config") or {}
        if scaling.get("min_replicas", 1) == 0 or scaling.get("initial_replicas", 1) == 0:
            raise ValueError(
                "llm.deployment_config.autoscaling_config: keep 1 replica at least; the replicas "
                "tell of the backlog, so with none of them a pool would never be scaled up"
            )
        return llm

    @field_validator("adapters")
    @classmethod
    def _is_no_kind_of_content(
        cls, adapters: dict[str, str | AdapterConfig]
    ) -> dict[str, str | AdapterConfig]:
        if taken := sorted(CONTENT_KINDS.intersection(adapters)):
            raise ValueError(
                f"vLLM would use an adapter of the name {taken[0]!r} for every message with such "
                "content, whatever model it asks for; choose another"
            )
        return adapters


class AcrossPoolsConfig(Strict):
    """Fairness over all pools together."""

    enabled: bool = Field(
        default=False,
        description="What a client receives in one pool counts in all of them, by `pools[].price`; "
        "else each pool is fair by itself. See [pools](pools.md#fairness-across-pools).",
    )
    debt: float = Field(
        default=400_000.0,
        ge=0,
        description="Service a live replica of a pool by which what a client of weight 1 had in "
        "other pools puts it behind those who wait there, at most.",
    )
