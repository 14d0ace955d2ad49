#!/bin/sh
# Makes the two databases of a Temporal server, or brings their schemas up to date. Running it again changes nothing. SQL_HOST, SQL_PORT,
# SQL_USER and SQL_PASSWORD say where; temporal-sql-tool reads them itself.
set -eu

for database in temporal temporal_visibility; do
	schema=$(echo "$database" | sed 's/^temporal_//')
	sql() { temporal-sql-tool --plugin postgres12 --database "$database" "$@"; }
	sql create-database --defaultdb postgres
	sql setup-schema --version 0.0
	sql update-schema --schema-name "postgresql/v12/$schema"
done
