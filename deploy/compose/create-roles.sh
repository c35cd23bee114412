#!/bin/sh
# Run once by PostgreSQL's image, when it makes its data: one role owns the schema, another serves.
set -eu
psql --set ON_ERROR_STOP=1 --username postgres --dbname postgres \
  --set owner_password="$(cat /run/secrets/owner_password)" \
  --set service_password="$(cat /run/secrets/service_password)" <<'SQL'
create role msal_logout_owner login password :'owner_password';
create role msal_logout_service login password :'service_password';
create database msal_logout owner msal_logout_owner encoding 'UTF8' template template0;
revoke all on database msal_logout from public;
grant connect on database msal_logout to msal_logout_service;
SQL
