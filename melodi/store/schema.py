"""The tables: hosts, domains, ledger, requests, roll-ups, windows, and what is kept to replay."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

from melodi.store.dialect import Instant, Json, RequestId
from melodi.store.measures import AMOUNTS

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

hosts = Table(
    "hosts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("machine_id", Text),
    Column("cpu", Text),
    Column("inventory", Json),
    Column("first_seen_at", Instant),
    Column("last_seen_at", Instant),
    # Kept here, not taken from the requests: pruning them must not start the count again.
    Column("last_seq", BigInteger, nullable=False, server_default="0"),
    # Whose batch was written last: one that comes again is not added to the minutes twice.
    Column("last_writer", Text),
    Column("last_batch", BigInteger),
)

domains = Table(
    "domains",
    metadata,
    Column("host", Text, ForeignKey("hosts.name"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("idle_watts", Double),
    Column("last_seen_at", Instant, nullable=False),
)

ledger_minutes = Table(
    "ledger_minutes",
    metadata,
    Column("host", Text, ForeignKey("hosts.name"), primary_key=True),
    Column("domain", Text, primary_key=True),
    Column("minute", Integer, primary_key=True),
    Column("measured_joules", Double, nullable=False),
    Column("active_joules", Double, nullable=False),
    Column("idle_share_joules", Double, nullable=False),
    Column("load_joules", Double, nullable=False),
    Column("idle_joules", Double, nullable=False),
    Column("foreign_joules", Double, nullable=False),
    Column("unattributed_joules", Double, nullable=False),
    Column("tail_joules", Double, nullable=False),
    Column("unmeasured_seconds", Double, nullable=False),
    Index("ix_ledger_minutes_minute", "minute"),
)

requests = Table(
    "requests",
    metadata,
    Column("id", RequestId, primary_key=True),
    Column("seq", BigInteger),
    Column("revision", Integer, nullable=False),
    Column("provisional", Boolean, nullable=False),
    Column("origin", Text),
    Column("host", Text, ForeignKey("hosts.name"), nullable=False),
    Column("backend", Text, nullable=False),
    Column("backend_kind", Text, nullable=False),
    Column("backend_version", Text),
    Column("model", Text),
    Column("model_digest", Text),
    Column("campaign", Text),
    Column("task", Text),
    Column("tags", Json, nullable=False),
    Column("prompt_hash", Text),
    Column("prompt", Text),
    Column("response", Text),
    Column("scores", Json, nullable=False),
    Column("generation", Json, nullable=False),
    Column("streamed", Boolean),
    Column("status", Text, nullable=False),
    Column("finish_reason", Text),
    Column("attempt", Integer, nullable=False),
    Column("error", Text),
    Column("http_status", Integer),
    Column("scheduled_at", Instant),
    Column("started_at", Instant, nullable=False),
    Column("duration_seconds", Double),
    Column("time_to_first_token_seconds", Double),
    Column("time_per_output_token_seconds", Double),
    Column("queue_seconds", Double),
    Column("load_seconds", Double),
    Column("prefill_seconds", Double),
    Column("decode_seconds", Double),
    Column("concurrency_mean", Double),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_input_tokens", BigInteger),
    Column("tokens_source", Text),
    Column("footprint", Text),
    Column("energy_joules", Double),
    Column("active_joules", Double),
    Column("idle_share_joules", Double),
    Column("load_joules", Double),
    Column("prefill_joules", Double),
    Column("decode_joules", Double),
    Column("gpu_joules", Double),
    Column("cpu_joules", Double),
    Column("dram_joules", Double),
    Column("low_joules", Double),
    Column("high_joules", Double),
    Column("exclusive_low_joules", Double),
    Column("exclusive_high_joules", Double),
    Column("sensor_uncertainty_ratio", Double),
    Column("joules_per_output_token", Double),
    Column("domains", Json, nullable=False),
    Column("policy", Text),
    Column("policy_version", Integer),
    Column("quality", Text, nullable=False),
    Column("quality_reasons", Json, nullable=False),
    Column("sm_clock_mhz", Integer),
    Column("memory_clock_mhz", Integer),
    Column("power_limit_watts", Double),
    Column("gpu_temperature_celsius", Integer),
    Column("throttle_reasons", Json),
    # Unique by construction, see RecordStore.apply: a UNIQUE without the id would forbid to
    # partition this table by ranges of the id.
    Index(None, "host", "seq"),
    # With the id in it, a page's order comes straight from the index.
    Index(None, "started_at", "id"),
    Index(None, "host", "model", "started_at"),
    Index(None, "model", "started_at"),
)

loaded_minutes = Table(
    "loaded_minutes",
    metadata,
    Column("host", Text, ForeignKey("hosts.name"), primary_key=True),
    Column("domain", Text, primary_key=True),
    Column("minute", Integer, primary_key=True),
    # Both are empty words where the row tells for how long anybody looked.
    Column("backend", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("seconds", Double, nullable=False),
    Column("vram_byte_seconds", Double),
    Index(None, "minute"),
)

kept_minutes = Table(
    "kept_minutes",
    metadata,
    Column("host", Text, ForeignKey("hosts.name"), primary_key=True),
    Column("session", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("minute", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index(None, "host", "minute"),
)

_AMOUNT_TYPES = {int: BigInteger, float: Double, bytes: LargeBinary}

rollups = Table(
    "rollups",
    metadata,
    Column("host", Text, ForeignKey("hosts.name"), primary_key=True),
    Column("hour", Integer, primary_key=True),
    # What is unknown is an empty word here: NULL is no part of a key.
    *(
        Column(name, Text, primary_key=True)
        for name in ("backend", "model", "footprint", "origin", "quality", "policy")
    ),
    *(Column(name, _AMOUNT_TYPES[kind], nullable=False) for name, kind in AMOUNTS.items()),
    Index(None, "hour"),
)

windows = Table(
    "windows",
    metadata,
    Column("id", RequestId, primary_key=True),
    Column("host", Text, ForeignKey("hosts.name"), nullable=False),
    Column("name", Text),
    Column("status", Text, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("duration_seconds", Double),
    Column("joules", Double),
    Column("domains", Json, nullable=False),
    Column("labels", Json, nullable=False),
    Column("metadata", Json, nullable=False),
    Column("samples", BigInteger),
    Column("macs", BigInteger),
    Column("params", BigInteger),
    Index(None, "host", "status"),
)
