"""A record says when a request was served, and keeps of its prompt what may be kept."""

import hashlib
from dataclasses import fields

import pytest

from collectors.base import Conditions
from melodi.daemon.compose import Privacy, describe, service_of, with_energy
from melodi.energy.bins import Interval
from melodi.energy.record import DomainEnergy, EnergyRecord, Quality, Status
from melodi.energy.total import RequestEnergy, unmeasured
from melodi.inference.timeline import RequestTimeline

SECOND = 1_000_000_000
SENT_NS = 100 * SECOND


def timeline(**more: object) -> RequestTimeline:
    known: dict[str, object] = {
        "id": "a",
        "backend": "b",
        "backend_kind": "vllm",
        "wall_ns": 1_767_225_600 * SECOND,
        "sent_ns": SENT_NS,
        "end_ns": SENT_NS + 10 * SECOND,
        "status": Status.OK,
        "http_status": 200,
        "reached": True,
        "prompt": "why is the sky blue?",
        "response": "because",
    }
    return RequestTimeline(**(known | more))  # type: ignore[arg-type]


def record_of(
    one: RequestTimeline,
    energy: RequestEnergy | None = None,
    *,
    prompts: str = "hash",
    conditions: dict[str, Conditions] | None = None,
) -> EnergyRecord:
    facts = describe(one, host="h", privacy=Privacy(prompts, b"key"))
    return with_energy(
        facts, energy or unmeasured("no_meter"), provisional=False, conditions=conditions or {}
    )


def after_s(start: float, end: float) -> Interval:
    return Interval(SENT_NS + round(start * SECOND), SENT_NS + round(end * SECOND))


def test_ollama_is_served_in_the_last_stretch_that_it_worked() -> None:
    """Four clients and one slot: of 10 s only the 2 s at the end may be billed."""
    span = service_of(
        timeline(backend_kind="ollama", prefill_seconds=0.5, decode_seconds=1.5, queue_seconds=8.0)
    )
    assert span.service == after_s(8, 10)
    assert span.load is None


def test_a_model_load_is_a_stretch_of_its_own() -> None:
    """Load comes first, and does not overlap the service."""
    span = service_of(
        timeline(backend_kind="ollama", load_seconds=3.0, prefill_seconds=1.0, decode_seconds=6.0)
    )
    assert span.load == after_s(0, 3)
    assert span.service == after_s(3, 10)


def test_a_few_milliseconds_of_load_are_no_load() -> None:
    """Ollama reports them for a warm model."""
    span = service_of(
        timeline(backend_kind="ollama", load_seconds=0.002, prefill_seconds=1.0, decode_seconds=8.0)
    )
    assert span.load is None


def test_queueing_that_the_backend_reports_is_no_service() -> None:
    """A queued request takes nothing."""
    assert service_of(timeline(queue_seconds=4.0)).service == after_s(4, 10)
    assert service_of(timeline()).service == after_s(0, 10)


def test_the_first_token_lies_within_the_service() -> None:
    """Clocks of two machines may disagree by a little."""
    span = service_of(timeline(queue_seconds=4.0, first_token_ns=SENT_NS + SECOND))
    assert span.first_token_ns == span.service.start_ns


@pytest.mark.parametrize(
    ("http_status", "reached", "served"),
    [(404, True, False), (None, False, False), (None, True, True), (500, True, True)],
)
def test_a_refused_request_was_not_served(
    http_status: int | None, reached: bool, served: bool
) -> None:
    """A wrong model name costs no joules; a crash or a time-out after the prompt was sent may."""
    one = timeline(status=Status.ERROR, http_status=http_status, reached=reached)
    assert (service_of(one) is not None) is served


def test_a_call_that_only_loads_a_model_is_a_load_and_no_service() -> None:
    """Its joules go to the load, and nobody is served."""
    span = service_of(timeline(load_only=True, finish_reason="load"))
    assert span.load == after_s(0, 10)
    assert span.service.length_ns == 0
    assert service_of(timeline(load_only=True, finish_reason="unload")) is None


def test_a_running_request_has_no_service_yet() -> None:
    """Asking too early is a mistake of the caller's."""
    with pytest.raises(ValueError, match="has not ended"):
        service_of(timeline(end_ns=None))


def test_times_are_seconds_and_tpot_leaves_the_first_token_out() -> None:
    """TTFT 2 s, then 8 s for the other 4 of 5 tokens."""
    record = record_of(timeline(first_token_ns=SENT_NS + 2 * SECOND, output_tokens=5))
    assert record.duration_seconds == 10.0
    assert record.time_to_first_token_seconds == 2.0
    assert record.time_per_output_token_seconds == 2.0
    assert record.decode_seconds == 8.0


@pytest.mark.parametrize("more", [{"output_tokens": 1}, {"output_tokens": None}])
def test_time_per_token_of_one_token_is_unknown(more: dict[str, object]) -> None:
    """Nothing follows the first token, so there is nothing to divide."""
    record = record_of(timeline(first_token_ns=SENT_NS, **more))
    assert record.time_per_output_token_seconds is None


def test_without_a_first_token_nothing_is_made_up() -> None:
    """Not streamed: TTFT and phases stay unknown, not 0."""
    record = record_of(timeline(output_tokens=5))
    assert record.time_to_first_token_seconds is None
    assert record.decode_seconds is None


def test_no_tokens_give_no_joules_per_token() -> None:
    """Unknown tokens and zero tokens both leave the ratio unknown."""
    energy = RequestEnergy(energy_joules=10.0)
    assert record_of(timeline(output_tokens=4), energy).joules_per_output_token == 2.5
    assert record_of(timeline(output_tokens=0), energy).joules_per_output_token is None
    assert record_of(timeline(), energy).joules_per_output_token is None


def test_passing_traffic_keeps_a_keyed_hash_only() -> None:
    """A plain hash of a short prompt could be guessed back."""
    plain = hashlib.sha256(b"why is the sky blue?").hexdigest()
    record = record_of(timeline())
    assert record.prompt is None
    assert record.response is None
    assert record.prompt_hash not in (None, plain)
    assert record_of(timeline(), prompts="none").prompt_hash is None
    assert record_of(timeline(), prompts="text").prompt == "why is the sky blue?"


def test_a_campaign_keeps_its_own_text() -> None:
    """It comes from the user's file; its hash is plain, so that data sets can be joined."""
    record = record_of(timeline(campaign="c", dispatched=True), prompts="none")
    assert record.prompt == "why is the sky blue?"
    assert record.response == "because"
    assert record.prompt_hash == hashlib.sha256(b"why is the sky blue?").hexdigest()


def test_devices_that_disagree_have_no_common_clock() -> None:
    """Two GPUs: the clock is unknown where it differs, the temperature is the hotter one's."""
    one = DomainEnergy(scope="gpu", source="s")
    energy = RequestEnergy(domains={"gpu:a": one, "gpu:b": one})
    states = {
        "gpu:a": Conditions(
            domain="gpu:a",
            at_ns=0,
            sm_clock_mhz=1980,
            memory_clock_mhz=2619,
            temperature_celsius=40,
        ),
        "gpu:b": Conditions(
            domain="gpu:b",
            at_ns=0,
            sm_clock_mhz=1200,
            memory_clock_mhz=2619,
            temperature_celsius=55,
            throttle_reasons=("power_cap",),
        ),
    }
    record = record_of(timeline(), energy, conditions=states)
    assert record.sm_clock_mhz is None
    assert record.memory_clock_mhz == 2619
    assert record.gpu_temperature_celsius == 55
    assert record.throttle_reasons == ("power_cap",)


@pytest.mark.parametrize(
    ("told", "stored"),
    [
        ([None], None),
        ([()], ()),
        ([(), None], None),
        ([("sw_power_cap",), None], ("sw_power_cap",)),
        ([("sw_power_cap",), ()], ("sw_power_cap",)),
    ],
)
def test_that_nothing_throttled_it_is_said_only_where_every_device_tells(
    told: list[tuple[str, ...] | None], stored: tuple[str, ...] | None
) -> None:
    """What a device does not tell is unknown, not an empty list; what one tells is known."""
    names = [f"gpu:{number}" for number in range(len(told))]
    energy = RequestEnergy(domains={name: DomainEnergy(scope="gpu", source="s") for name in names})
    states = {
        name: Conditions(domain=name, at_ns=0, throttle_reasons=reasons)
        for name, reasons in zip(names, told, strict=True)
    }
    assert record_of(timeline(), energy, conditions=states).throttle_reasons == stored


def test_without_a_device_nothing_is_known_of_its_state() -> None:
    """A request on a CPU alone has no list of reasons."""
    assert record_of(timeline()).throttle_reasons is None


def test_every_figure_of_the_energy_reaches_the_record() -> None:
    """The names are the same, so that none can be forgotten."""
    assert {field.name for field in fields(RequestEnergy)} <= {
        field.name for field in fields(EnergyRecord)
    }


def test_text_that_a_database_cannot_hold_is_made_holdable() -> None:
    """A NUL or half a surrogate pair in a prompt must not cost anybody a record."""
    record = record_of(
        timeline(
            prompt="a\0b\ud800c 😀",
            model="m\udfff",
            tags={"k\0": "v\ud800"},
            generation={"stop": ["\0"], "seed": 1},
        ),
        prompts="text",
    )
    assert record.prompt == "a\ufffdb\ufffdc 😀"
    assert record.model == "m\ufffd"
    assert record.tags == {"k\ufffd": "v\ufffd"}
    assert record.generation == {"stop": ["\ufffd"], "seed": 1}


def test_a_gateway_client_cannot_have_its_text_stored_by_naming_a_campaign() -> None:
    """Only what MELODI itself sent is the owner's own."""
    record = record_of(timeline(campaign="c"), prompts="none")
    assert record.campaign == "c"
    assert record.prompt is None
    assert record.prompt_hash is None


def on_gpu(
    *,
    active: float | None,
    cpu: float | None = None,
    company: float = 1.0,
    quality: str = "measured",
) -> RequestEnergy:
    """What 10 s on a GPU that idles at 50 W cost."""
    gpu = DomainEnergy(
        scope="gpu", source="t", active_joules=active, idle_watts=50.0, quality=Quality(quality)
    )
    return RequestEnergy(
        domains={"gpu:a": gpu},
        cpu_joules=cpu,
        concurrency_mean=company,
        quality_reasons=("foreign_unknown",),
    )


IDLE = ("foreign_unknown", "gpu_idle_during_decode")


def test_tokens_from_a_gpu_that_stays_idle_came_from_elsewhere() -> None:
    """The model runs on the CPU, which nobody measures: the record says so."""
    idle = record_of(timeline(output_tokens=50), energy=on_gpu(active=10.0))
    assert idle.quality_reasons == IDLE


@pytest.mark.parametrize(
    "energy",
    [
        on_gpu(active=500.0),
        on_gpu(active=10.0, company=8.0),
        on_gpu(active=10.0, cpu=300.0),
        on_gpu(active=None),
        on_gpu(active=0.0, quality="sub_sensor"),
    ],
    ids=["busy", "one of eight", "the CPU is measured", "idle is not known", "too short to tell"],
)
def test_a_gpu_that_worked_or_cannot_tell_is_not_called_idle(energy: RequestEnergy) -> None:
    """The reason stands only where it is known."""
    assert record_of(timeline(output_tokens=50), energy=energy).quality_reasons == IDLE[:1]


def test_a_request_without_tokens_says_nothing_of_the_gpu() -> None:
    """A refused one leaves it idle, as it should."""
    assert (
        record_of(timeline(output_tokens=None), energy=on_gpu(active=0.0)).quality_reasons
        == IDLE[:1]
    )


def test_doubts_of_the_charge_stand_beside_the_reasons_of_the_energy() -> None:
    """And not where nothing was charged."""
    facts = describe(timeline(), host="h", privacy=Privacy("hash", b"key"))
    for energy, reasons in (
        (on_gpu(active=500.0), ("devices_assumed", "foreign_unknown")),
        (unmeasured("no_meter"), ("no_meter",)),
    ):
        found = with_energy(
            facts, energy, provisional=False, conditions={}, doubts=["devices_assumed"]
        )
        assert found.quality_reasons == reasons
