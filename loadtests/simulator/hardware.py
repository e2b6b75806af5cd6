"""The simulated server: how long a step takes, and what fits.

The numbers are those of one NVIDIA A10G (24 GB) that serves a model of the Llama-2-7B class, as
recorded for the VTC paper: GitHub `Ying1123/VTC-artifact`, commit
192c2e2014c69c8c6c699d7113c3822e4db632e6 (Apache-2.0), folder `fair_bench/`. The settings are the
recorded server's; the five constants of the step times were fitted by us to the 34 recorded runs
and the isolated engine profile there. tests/unit/loadtests/test_simulator_calibration.py holds the
simulator to those runs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepTimes:
    """How long an engine computes, in seconds. The defaults are the A10G's.

    A prefill costs `prefill_s` and so much for each prompt token; a decode step costs `step_s`, so
    much for each running request, and so much for each token of their contexts before the step.
    """

    prefill_s: float = 0.05342
    prefill_token_s: float = 0.00020899
    step_s: float = 0.02576
    step_request_s: float = 0.00018012
    step_token_s: float = 1.3587e-06

    def prefill(self, tokens: int) -> float:
        """Seconds for one prefill over this many prompt tokens."""
        return self.prefill_s + self.prefill_token_s * tokens

    def decode(self, steps: int, running: int, context: int) -> float:
        """Seconds for `steps` decode steps of an unchanged batch.

        running: requests. context: their tokens before the first of the steps. Each step adds a
        token to each request, so the steps' contexts are an arithmetic series.
        """
        first = self.step_s + self.step_request_s * running + self.step_token_s * context
        return steps * first + self.step_token_s * running * (steps * (steps - 1) // 2)

    def decoded(self, seconds: float, running: int, context: int) -> int:
        """How many whole decode steps end within `seconds`: the inverse of `decode`."""
        first = self.step_s + self.step_request_s * running + self.step_token_s * context
        steps = int(seconds / first) + 1  # steps only get longer, so there are no more
        while steps and self.decode(steps, running, context) > seconds:
            steps -= 1
        return steps


@dataclass(frozen=True, slots=True)
class Server:
    """One model server. Tokens, requests and seconds; the defaults are the recorded server's.

    kv_tokens: that fit in the KV cache. prefill_tokens: prompt tokens in one prefill at most.
    client_tokens: of the KV cache, put aside for each client in the batch (the recorded server
    keeps a slot for the client's adapter, though it computes none). admission_steps: decode steps
    between two admissions. poll_s: how often an idle server looks for requests. prompt_overhead:
    tokens that a prompt has beyond its nominal length.
    """

    times: StepTimes = StepTimes()
    kv_tokens: int = 10_000
    prefill_tokens: int = 3_072
    max_running: int = 1_000
    client_tokens: int = 32
    admission_steps: int = 10
    poll_s: float = 0.01
    prompt_overhead: int = 2


A10G = Server()
