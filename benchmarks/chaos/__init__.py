"""What misbehaving clients and backends leave behind."""
