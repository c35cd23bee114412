#!/bin/sh
# Run once by PostgreSQL's image, when it makes its data.
set -eu
psql --set ON_ERROR_STOP=1 --username postgres --dbname postgres \
  --set owner_password="$(cat /run/secrets/owner_password)" \
  --set service_password="$(cat /run/secrets/service_password)" \
  --file /create-roles.sql
