"""The first tables."""

import sqlalchemy as sa
from alembic import op

from melodi.store.dialect import Instant, Json, RequestId

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "hosts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("machine_id", sa.Text()),
        sa.Column("cpu", sa.Text()),
        sa.Column("inventory", Json),
        sa.Column("first_seen_at", Instant()),
        sa.Column("last_seen_at", Instant()),
        sa.Column("last_seq", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("last_writer", sa.Text()),
        sa.Column("last_batch", sa.BigInteger()),
        sa.PrimaryKeyConstraint("name", name="pk_hosts"),
    )
    op.create_table(
        "domains",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("idle_watts", sa.Double()),
        sa.Column("last_seen_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("host", "name", name="pk_domains"),
        sa.ForeignKeyConstraint(["host"], ["hosts.name"], name="fk_domains_host"),
    )
    op.create_table(
        "ledger_minutes",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("minute", sa.Integer(), nullable=False),
        sa.Column("measured_joules", sa.Double(), nullable=False),
        sa.Column("active_joules", sa.Double(), nullable=False),
        sa.Column("idle_share_joules", sa.Double(), nullable=False),
        sa.Column("load_joules", sa.Double(), nullable=False),
        sa.Column("idle_joules", sa.Double(), nullable=False),
        sa.Column("foreign_joules", sa.Double(), nullable=False),
        sa.Column("unattributed_joules", sa.Double(), nullable=False),
        sa.Column("tail_joules", sa.Double(), nullable=False),
        sa.Column("unmeasured_seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("host", "domain", "minute", name="pk_ledger_minutes"),
        sa.ForeignKeyConstraint(["host"], ["hosts.name"], name="fk_ledger_minutes_host"),
    )
    op.create_index("ix_ledger_minutes_minute", "ledger_minutes", ["minute"])
    op.create_table(
        "loaded_minutes",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("minute", sa.Integer(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("vram_byte_seconds", sa.Double()),
        sa.PrimaryKeyConstraint(
            *("host", "domain", "minute", "backend", "model"), name="pk_loaded_minutes"
        ),
        sa.ForeignKeyConstraint(["host"], ["hosts.name"], name="fk_loaded_minutes_host"),
    )
    op.create_index("ix_loaded_minutes_minute", "loaded_minutes", ["minute"])
    op.create_table(
        "kept_minutes",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("minute", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("host", "session", "number", name="pk_kept_minutes"),
        sa.ForeignKeyConstraint(["host"], ["hosts.name"], name="fk_kept_minutes_host"),
    )
    op.create_index("ix_kept_minutes_host_minute", "kept_minutes", ["host", "minute"])
    op.create_table(
        "requests",
        sa.Column("id", RequestId, nullable=False),
        sa.Column("seq", sa.BigInteger()),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("provisional", sa.Boolean(), nullable=False),
        sa.Column("origin", sa.Text()),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("backend_kind", sa.Text(), nullable=False),
        sa.Column("backend_version", sa.Text()),
        sa.Column("model", sa.Text()),
        sa.Column("model_digest", sa.Text()),
        sa.Column("campaign", sa.Text()),
        sa.Column("task", sa.Text()),
        sa.Column("tags", Json, nullable=False),
        sa.Column("prompt_hash", sa.Text()),
        sa.Column("prompt", sa.Text()),
        sa.Column("response", sa.Text()),
        sa.Column("scores", Json, nullable=False),
        sa.Column("generation", Json, nullable=False),
        sa.Column("streamed", sa.Boolean()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("finish_reason", sa.Text()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("http_status", sa.Integer()),
        sa.Column("scheduled_at", Instant()),
        sa.Column("started_at", Instant(), nullable=False),
        sa.Column("duration_seconds", sa.Double()),
        sa.Column("time_to_first_token_seconds", sa.Double()),
        sa.Column("time_per_output_token_seconds", sa.Double()),
        sa.Column("queue_seconds", sa.Double()),
        sa.Column("load_seconds", sa.Double()),
        sa.Column("prefill_seconds", sa.Double()),
        sa.Column("decode_seconds", sa.Double()),
        sa.Column("concurrency_mean", sa.Double()),
        sa.Column("input_tokens", sa.BigInteger()),
        sa.Column("output_tokens", sa.BigInteger()),
        sa.Column("cached_input_tokens", sa.BigInteger()),
        sa.Column("tokens_source", sa.Text()),
        sa.Column("footprint", sa.Text()),
        sa.Column("energy_joules", sa.Double()),
        sa.Column("active_joules", sa.Double()),
        sa.Column("idle_share_joules", sa.Double()),
        sa.Column("load_joules", sa.Double()),
        sa.Column("prefill_joules", sa.Double()),
        sa.Column("decode_joules", sa.Double()),
        sa.Column("gpu_joules", sa.Double()),
        sa.Column("cpu_joules", sa.Double()),
        sa.Column("dram_joules", sa.Double()),
        sa.Column("low_joules", sa.Double()),
        sa.Column("high_joules", sa.Double()),
        sa.Column("exclusive_low_joules", sa.Double()),
        sa.Column("exclusive_high_joules", sa.Double()),
        sa.Column("sensor_uncertainty_ratio", sa.Double()),
        sa.Column("joules_per_output_token", sa.Double()),
        sa.Column("domains", Json, nullable=False),
        sa.Column("policy", sa.Text()),
        sa.Column("policy_version", sa.Integer()),
        sa.Column("quality", sa.Text(), nullable=False),
        sa.Column("quality_reasons", Json, nullable=False),
        sa.Column("sm_clock_mhz", sa.Integer()),
        sa.Column("memory_clock_mhz", sa.Integer()),
        sa.Column("power_limit_watts", sa.Double()),
        sa.Column("gpu_temperature_celsius", sa.Integer()),
        sa.Column("throttle_reasons", Json),
        sa.PrimaryKeyConstraint("id", name="pk_requests"),
        sa.ForeignKeyConstraint(["host"], ["hosts.name"], name="fk_requests_host"),
    )
    op.create_index("ix_requests_host_seq", "requests", ["host", "seq"])
    op.create_index("ix_requests_started_at_id", "requests", ["started_at", "id"])
    op.create_index(
        "ix_requests_host_model_started_at", "requests", ["host", "model", "started_at"]
    )
    op.create_index("ix_requests_model_started_at", "requests", ["model", "started_at"])
    op.create_table(
        "rollups",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("footprint", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("quality", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("joules_per_request_known", sa.BigInteger(), nullable=False),
        sa.Column("joules_per_request_sum", sa.Double(), nullable=False),
        sa.Column("joules_per_request_histogram", sa.LargeBinary(), nullable=False),
        sa.Column("joules_per_output_token_known", sa.BigInteger(), nullable=False),
        sa.Column("joules_per_output_token_sum", sa.Double(), nullable=False),
        sa.Column("joules_per_output_token_weight", sa.Double(), nullable=False),
        sa.Column("joules_per_output_token_histogram", sa.LargeBinary(), nullable=False),
        sa.Column("joules_per_token_known", sa.BigInteger(), nullable=False),
        sa.Column("joules_per_token_sum", sa.Double(), nullable=False),
        sa.Column("joules_per_token_weight", sa.Double(), nullable=False),
        sa.Column("joules_per_token_histogram", sa.LargeBinary(), nullable=False),
        sa.Column("output_tokens_per_second_known", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens_per_second_sum", sa.Double(), nullable=False),
        sa.Column("output_tokens_per_second_weight", sa.Double(), nullable=False),
        sa.Column("output_tokens_per_second_histogram", sa.LargeBinary(), nullable=False),
        sa.Column("time_to_first_token_seconds_known", sa.BigInteger(), nullable=False),
        sa.Column("time_to_first_token_seconds_sum", sa.Double(), nullable=False),
        sa.Column("time_to_first_token_seconds_histogram", sa.LargeBinary(), nullable=False),
        sa.Column("time_per_output_token_seconds_known", sa.BigInteger(), nullable=False),
        sa.Column("time_per_output_token_seconds_sum", sa.Double(), nullable=False),
        sa.Column("time_per_output_token_seconds_histogram", sa.LargeBinary(), nullable=False),
        sa.Column("active_joules_known", sa.BigInteger(), nullable=False),
        sa.Column("active_joules_sum", sa.Double(), nullable=False),
        sa.Column("idle_share_joules_known", sa.BigInteger(), nullable=False),
        sa.Column("idle_share_joules_sum", sa.Double(), nullable=False),
        sa.Column("load_joules_known", sa.BigInteger(), nullable=False),
        sa.Column("load_joules_sum", sa.Double(), nullable=False),
        sa.Column("prefill_joules_known", sa.BigInteger(), nullable=False),
        sa.Column("prefill_joules_sum", sa.Double(), nullable=False),
        sa.Column("decode_joules_known", sa.BigInteger(), nullable=False),
        sa.Column("decode_joules_sum", sa.Double(), nullable=False),
        sa.Column("gpu_joules_known", sa.BigInteger(), nullable=False),
        sa.Column("gpu_joules_sum", sa.Double(), nullable=False),
        sa.Column("cpu_joules_known", sa.BigInteger(), nullable=False),
        sa.Column("cpu_joules_sum", sa.Double(), nullable=False),
        sa.Column("dram_joules_known", sa.BigInteger(), nullable=False),
        sa.Column("dram_joules_sum", sa.Double(), nullable=False),
        sa.Column("duration_seconds_known", sa.BigInteger(), nullable=False),
        sa.Column("duration_seconds_sum", sa.Double(), nullable=False),
        sa.Column("input_tokens_known", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens_sum", sa.Double(), nullable=False),
        sa.Column("output_tokens_known", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens_sum", sa.Double(), nullable=False),
        sa.Column("cached_input_tokens_known", sa.BigInteger(), nullable=False),
        sa.Column("cached_input_tokens_sum", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint(
            *("host", "hour", "backend", "model", "footprint", "origin", "quality", "policy"),
            name="pk_rollups",
        ),
        sa.ForeignKeyConstraint(["host"], ["hosts.name"], name="fk_rollups_host"),
    )
    op.create_index("ix_rollups_hour", "rollups", ["hour"])
    op.create_table(
        "windows",
        sa.Column("id", RequestId, nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", Instant(), nullable=False),
        sa.Column("duration_seconds", sa.Double()),
        sa.Column("joules", sa.Double()),
        sa.Column("domains", Json, nullable=False),
        sa.Column("labels", Json, nullable=False),
        sa.Column("metadata", Json, nullable=False),
        sa.Column("samples", sa.BigInteger()),
        sa.Column("macs", sa.BigInteger()),
        sa.Column("params", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_windows"),
        sa.ForeignKeyConstraint(["host"], ["hosts.name"], name="fk_windows_host"),
    )
    op.create_index("ix_windows_host_status", "windows", ["host", "status"])


def downgrade() -> None:
    op.drop_table("windows")
    op.drop_table("rollups")
    op.drop_table("requests")
    op.drop_table("kept_minutes")
    op.drop_table("loaded_minutes")
    op.drop_table("ledger_minutes")
    op.drop_table("domains")
    op.drop_table("hosts")
