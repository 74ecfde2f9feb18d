"""A record says when a request was served, and keeps of its prompt what may be kept."""

import hashlib
from dataclasses import fields

import pytest
from timelines import SECOND, SENT_NS, timeline

from collectors.base import Conditions
from melodi.daemon.compose import Privacy, describe, with_energy
from melodi.energy.record import DomainEnergy, EnergyRecord, Quality
from melodi.energy.total import RequestEnergy, unmeasured
from melodi.inference.timeline import RequestTimeline


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
