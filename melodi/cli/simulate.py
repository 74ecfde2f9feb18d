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
    from melodi.logs import configure_logging
    from melodi.simulator.launch import run_simulator

    def tell(url: str) -> None:
        say(f"{kind.value}     {url}   (model: simulated; Ctrl-C ends it)")
        say(f"truth      {url}/simulator/requests/<id>   (X-Simulator-Id of a response)")
        say(f'power      set collectors.simulated = "{url}" in melodi.toml')

    configure_logging()
    run_simulator(kind.value, port=port, on_bound=tell)
