"""`melodi simulate`: the simulated backend alone."""

from enum import StrEnum
from typing import Annotated

import typer

from melodi.cli.output import say


class Kind(StrEnum):
    """What a simulator can speak."""

    OLLAMA = "ollama"
    VLLM = "vllm"


def simulate(
    *,
    kind: Annotated[Kind, typer.Option(help="Whose API it speaks.")] = Kind.OLLAMA,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0: any.")] = 11434,
) -> None:
    """A simulated inference server on 127.0.0.1, whose true joules are known."""
    from melodi.simulator.launch import run_simulator

    say(f"simulating {kind.value} until Ctrl-C; its truth: /simulator/requests/<response id>")
    run_simulator(kind.value, port=port)
